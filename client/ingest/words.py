"""Words of radiology reports that are not names, though many are somebody's name.

``FUNCTION`` holds grammar and the verbs of reporting: no name begins or goes on with them. ``RADIOLOGY``
holds what reports speak of; a name among them ("Long", "May", "Bell") is taken for a name only where its
place says so.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION = _words(
    """ a about above according across after again against all almost along already also although always am
    among an and another any anyone are aren around as at available away be became because been before began
    behind being below beneath beside besides between beyond both but by can cannot come compared concerning
    could despite did do does doing done down due during each either else even ever every everything except
    for from further given had has have having he hence her here hers him himself his how however i if in
    indeed instead into is isn it its itself just later least less let likely made make many me might mine
    more moreover most much must my myself near nearly neither never nevertheless next no nobody none nor
    not nothing now of off often on once one only onto or other others our ours out over overall own per
    perhaps quite rather regarding same see seen several shall she should since so some somewhat soon such
    than that the their theirs them themselves then there therefore these they this those though through
    throughout thus to today together tomorrow too toward towards two under unless until up upon us usually
    very via was wasn we well were what when where whereas whether which while who whom whose why with
    within without would yet you your yours first second third fourth fifth three four five six seven eight
    nine ten accepted acknowledged acknowledges acknowledging advised agrees agreed aware called calling
    confirmed confirms communicated contacted conveyed dictated discussed discussing explained informed
    interpreted notified notify paged received relayed reported reviewed reviewing signed spoke stated
    telephoned transcribed understood verbalized verified immediately directly electronically approximately
    personally please was yesterday ordering dictating signing rendering requesting thank thanks regards
    sincerely 
    """
)

CLINICAL = FUNCTION | _words(
    """ abdomen abdominal aberrant abnormal abnormalities abnormality abscess absence absent accentuated
    accessory acquired active activity acute additional additionally adequate adequately adenopathy adhesion
    adjacent adjusted adjustment adult advanced advancement aeration aerated age aged agent aggressive air
    airless airspace airway airways alert alignment allowing altered alternative alveolar amount amputation
    anatomic anatomical anatomy anemia aneurysm aneurysmal angina angiogram angle angles angular angulation
    ankle ankylosing annular annulus anomalous anomaly anterior anteriorly anterolateral anteroposterior
    antrum anxiety aorta aortic ap apex apical apices apparent apparently appearance appearances appearing
    appears appendage appliance applicable apply appreciable appreciated appropriate arch area areas arm
    arms arrest arrhythmia art arterial arteries artery arthritic arthritis arthroplasty arthropathy
    artifact artifacts asbestos asbestosis ascending ascites aspect aspiration assess assessed assessment
    associated asthma asthmatic asymmetric asymmetrical asymmetry atelectasis atelectatic atherosclerosis
    atherosclerotic atrial atrium attempt attending attention attenuated attenuation atypical augmentation
    avulsion axial axilla axillary azygos back bacterial ball balloon band bandlike banding bands bank
    barium barrel base basal bases basilar basis beam bed beds bell benign best better bibasilar bicuspid
    bifurcation bilateral bilaterally bileaflet biopsy bipap black blank bleb blebs bleed bleeding blood
    blunted blunting blunt blur blurred blurring body boerhaave bone bones bony border borderline borders
    bottom bowel brachial brachiocephalic bradycardia branches branch breast breasts breath breathing bright
    broad bronchi bronchial bronchiectasis bronchiolitis bronchitic bronchitis bronchogenic bronchogram
    bronchograms bronchopneumonia bronchoscopy bronchovascular bronchus brown bulge bulging bulla bullae
    bullet bullous burden bypass cabg cage calcific calcification calcifications calcified calcium caliber
    callus camera cancer cannula cannulated capacity carcinoid carcinoma cardia cardiac cardiogenic
    cardiology cardiomediastinal cardiomegaly cardiomyopathy cardiophrenic cardiopulmonary cardiothoracic
    cardiovascular care carina carinal carotid case cases cath catheter catheterization catheters caudal
    cause caused causes causing cava caval caveat cavitary cavitation cavities cavity cavoatrial cell
    cellulitis central centrally centimeter centimeters center cephalad cephalization certain cervical
    change changed changes changing characteristic characterization characterize check chest chf child chin
    chills chole cholecystectomy chronic chronically circular circumferential cirrhosis clamp clavicle
    clavicles clavicular clear cleared clearer clearing clearly cleft clinic clinical clinically clip clips
    close closed closely closer closure clot clothing cm coalescent coarctation coarse coarsened coarsening
    coil coils coiled cold collapse collapsed collar collateral collection collections column combination
    combined comment common comments community comparable compare comparison comparisons compatible
    compensatory complete completed completely complex complexity complicated complication complications
    component components compressed compression compressive computed concave concentric concern concerned
    condition conditions configuration confined confirm confirmation confluent congenital congested
    congestion congestive connective consequence consider consideration considered considering consistent
    consolidated consolidation consolidations consolidative consult consultation contact contacts contiguous
    continued continues continuous contour contours contracted contraction contrast contribute contributing
    contusion conventional cook copd cord core coronal coronary corona correct corrected correlate
    correlated correlation correspond corresponding cortical cortex costal costochondral costophrenic cough
    count course coursing court covered cpap cr crackles cranial craniocaudal crease creases crescent
    critical cross crossing crowded crowding ct cta cuff cuffing culture current currently curvature curve
    curved curvilinear cutaneous cxr cyst cystic cysts daily dark data date dated day days dean
    decompensated decompressed decrease decreased decreases decreasing decubitus deep deeper defect defects
    defibrillator definite definitely definition definitive deform deformities deformity degenerated
    degeneration degenerative degree degrees delayed demineralization demineralized demonstrate demonstrated
    demonstrates demonstrating dense densities density dependent deposition depressed depression depth
    descending described description destruction destructive detail detected detectable detection determine
    determined developed developing development developmental device devices deviated deviation dextro
    dextroconvex dextrocurvature dextroscoliosis diabetes diabetic diagnosed diagnosis diagnostic diameter
    diaphragm diaphragmatic diaphragms diarrhea difference differences different differential difficult
    difficulty diffuse diffusely digital dilatation dilated dilation diminished dimension dimensions direct
    disc discitis discoid discomfort discrete disease diseases dish disk dislocation dislodged displaced
    displacement disposition dissection distal distally distance distended distension distention distinct
    distinctly distorted distortion distress distribution diverticulum dizziness dizzy dobhoff dobbhoff
    document documented dome domes dorsal double doubt doubtful drain drainage drains draw dressing drew
    drug dual duct dullness duodenum dx dyspnea dysphagia dysplasia early easily ecg echo ectasia ectatic
    ecmo edema edematous edge edges edward effect effects efficient effort effusion effusions ejection ekg
    elbow elderly electrode electrodes electronic elevated elevation elsewhere embolism emboli embolization
    emergency emphysema emphysematous empyema encephalopathy end endobronchial endocardial endoscopy
    endotracheal endovascular engorged engorgement enlarged enlargement enlarging enteric entire entirely
    entry epicardial epigastric epigastrium epicenter episode equivocal er erect erosion erosions erosive
    esophageal esophagus especially essentially established et etiologies etiology evaluate evaluated
    evaluation evaluating even event eventration evidence evident evolution evolving exam examination
    examinations exams examined exacerbation exact exaggerate exaggerated exaggeration excavatum exchange
    exclude excluded excludes excluding excursion exertion exertional exhibits exist existing exit exostosis
    expand expanded expansion expected expiration expiratory explain explained exposed exposure express
    extend extended extending extends extension extensive extent external extra extracardiac extraluminal
    extrapleural extrathoracic extremity extrinsic extubated extubation facet facial fact factor factors
    failed failure faint faintly fair fairly fall false family far fashion fat fatigue fatty favor favored
    feature features feed feeding feet female femoral femur fever few fiber fibrillation fibroid fibrosis
    fibrotic field fields figure filament fill filled filling film films filter final find finding findings
    fine finger finish fissural fissure fissures fistula fit fixation flail flange flank flap flat flattened
    flattening flexion floor florid flow fluffy fluid fluoroscopic fluoroscopy flutter focal focally focus
    foci fold folds follow followed following followup foot foramen force foreign foreshortened form
    formation formations former forward fossa found fracture fractured fractures fragment fragments frank
    free french frequency frequent fresh front frontal full fullness fully function fundus fungal fusion
    future gallbladder gap gas gaseous gaseously gastric gastroesophageal gastrostomy gender gene general
    generalized generally generator gentle geographic ghon giant gland glass glenohumeral glenoid global
    good goiter gown grade gradual gradually grant granular granulation granuloma granulomas granulomata
    granulomatous graft grave gray great greater greatest greatly green grey gross grossly ground group
    grown growth guidance guide gunshot gut guy gynecomastia habitus hairline half hampton hand hands hard
    hardware harness harrington hazard haze haziness hazy head heal healed healing health healthy heard
    heart heavily heavy height helpful hemangioma hematoma hemi hemiazygos hemidiaphragm hemidiaphragms
    hemithoraces hemithorax hemoptysis hemorrhage hemorrhagic hemothorax hepatic hepatitis hernia hernias
    hernial herniation heterogeneous hiatal hiatus hickman high higher highest highly hila hilar hill hilum
    hip hips histoplasmosis history histories hiv hodgkin hold hole hollow home homogeneous honeycomb
    honeycombing hook hope horizontal horn hospital host hour hours hubs huge humeral humerus hump hx
    hydropneumothorax hyper hyperaerated hyperaeration hyperdense hyperexpanded hyperexpansion hyperinflated
    hyperinflation hyperlucency hyperlucent hypertension hypertensive hypertrophic hypertrophy hypoaeration
    hypoexpanded hypoinflated hypoinflation hypotension hypoventilation hypoventilatory hypoxemia hypoxia
    hypoxic iatrogenic icd icu id identifiable identification identified identify idiopathic ij iliac ill
    illness image imaged images imaging immature immune immunocompromised impact impacted impaction implant
    implanted implants important impression impressive improve improved improvement improving inadequate
    incidental incidentally incision include included includes including incomplete incompletely increase
    increased increases increasing increasingly indentation independent indeterminate index indicate
    indicated indicates indicating indication indicative indistinct indistinctness individual induced
    indwelling infarct infarction infected infection infections infectious inferior inferiorly infiltrate
    infiltrates infiltration infiltrative inflammation inflammatory inflated inflation influenza information
    infra infraclavicular infradiaphragmatic infrahilar inhalation inhaled inhomogeneous initial injury
    injuries inner innumerable insert inserted insertion insignificant inspiration inspiratory instability
    insufficient insufficiency intact intensity interbody intercostal interface interim interior
    interlobular intermediate intermittent internal interposed interposition interpretation interstitial
    interstitium interval intervening intervention intervertebral intimal intra intracardiac intramedullary
    intraperitoneal intrathoracic intubated intubation invasive inversion inverted investigation involved
    involvement involves involving ipsilateral ir irregular irregularities irregularity irritation ischemia
    ischemic isolated issue iv ivc jack joint joints jugular junction kerley key kidney kidneys kind king
    kink kinked knee known knuckle kub kv kyphoplasty kyphosis kyphotic label labeled lack lake lamb
    laminectomy lane large largely larger largest last late lateral laterality laterally latter layer
    layering lead leads leaf leaflet leak lean left leftward leg legs lesion lesions lesser leukemia level
    levels levoconvex levocurvature levoscoliosis lie lies life light limb limit limitation limitations
    limited limiting limits line linear linearly lines lingula lingular lip lipoma list little liver living
    ll load lobar lobe lobectomy lobes lobulated lobulation lobule local localization localize localized
    localizing located location locations locule loculated loculation long longer longitudinal longstanding
    look loop loops loose looped lordosis lordotic loss lost low lower lowest luc lucencies lucency lucent
    lumbar lumen lumpectomy lung lungs lupus lying lymph lymphadenopathy lymphangitic lymphatic lymphoma
    main mainly mainstem maintain maintained major malalignment male malignancy malignant malposition
    malpositioned mammary man management mandible manifestation manner manubrium margin marginal marginally
    margins mark marked markedly marker markers marking markings marrow marsh mask mass masses massive
    masslike mastectomy material matter mature maximal maximum may mean means meaningful measure measured
    measurement measurements measures measuring mechanical med medial medially median mediastinal
    mediastinitis mediastinum medical medically medication mediport medium medullary member membrane men
    mental mesh mesothelioma metal metallic metastases metastasis metastatic method mid middle midclavicular
    midline midlung midportion midthoracic migrated migration mild milder mildly miliary miller milk million
    mimic mineralization minimal minimally minimum minor minute mislaid miss missed missing mitral mix mixed
    ml mm mobile mode moderate moderately modest mole monitor monitoring month months moon morbid morning
    morphology mosaic motion motor mouth movable move moved movement mr mri mucoid mucous mucus multi
    multichamber multifocal multilevel multilobar multilobulated multiple muscle muscular musculature
    musculoskeletal myeloma myocardial nail narrow narrowed narrowing nasal nasoenteric nasogastric native
    nature nausea neck necrosis necrotic need needed needle negative neonatal neoplasia neoplasm neoplastic
    nerve neural neurologic neurosurgical new newly night nipple nipples nodal node nodes nodular nodularity
    nodule nodules noise nonacute nonaggressive nondiagnostic nondisplaced nonenlarged nonfocal
    nonobstructive nonobstructing nonspecific nonunion normal normalization normally north notable notably
    notch notching note noted notes number numerous nurse nursing obese obesity objects oblique obliquely
    obliquity obliterated obliteration obscuration obscure obscured obscures obscuring observation observed
    obstruct obstructed obstruction obstructive obtained obvious obviously occasion occasional occluded
    occlusion occult occupational occupy occupying occur occurred occurring office old older open opaque
    opacification opacified opacities opacity operation operative optimal optimally or oral orderly order
    ordered organ organized organizing orientation oriented origin original orthopedic orthopnea osseous
    ossification osteoarthritic osteoarthritis osteolytic osteopenia osteopenic osteophyte osteophytes
    osteophytic osteophytosis osteoporosis osteoporotic osteotomy outflow outline outlined outlines outlet
    outpatient outside overexpanded overexpansion overinflated overinflation overlap overlapped overlapping
    overlay overlie overlies overload overlying overt oxygen pa pacemaker pacemakers pacer pacers pacing
    page pain pains palliative palpable palpitations pancreas pancreatitis pancake panel paper paracardiac
    paracentesis paradoxical paraesophageal parahilar paralysis paralyzed paramedian paramediastinal
    parapneumonic paraseptal paraspinal paraspinous paratracheal paravertebral parenchyma parenchymal
    parietal park part partial partially particular particularly partly parts passage passing past patch
    patches patchy patency patent pathologic pathological pathology patient patients pattern patterns peak
    pectoral pectus pedicle pediatric peg pellet pelvic pelvis pen pencil penetrated penetrating penetration
    peptic percent percutaneous perforation peribronchial pericardial pericarditis pericardium perihilar
    period periosteal peripheral peripherally periphery peritoneal peritoneum persist persisted persistence
    persistent persistently persists person pet phase phlebolith phosphate photopenic phrenic physical
    physician physiologic picc piece pigtail pin pins pinning place placed placement places plain plan plane
    planes plaque plaquelike plaques plate plates platelike platform play pleura pleural pleurisy pleuritic
    pleurodesis plethora plombage plug plugging pmh pneumatocele pneumobilia pneumoconiosis pneumocystis
    pneumomediastinum pneumonectomy pneumonia pneumonias pneumonic pneumonitis pneumopericardium
    pneumoperitoneum pneumothoraces pneumothorax point pointing poor poorly poorer porcelain port portable
    portacath portal portion portions position positional positioned positioning positions positive possess
    possibility possible possibly post posterior posteriorly posterobasal posterolateral postinfectious
    postinflammatory postoperative postprocedure postprocedural postsurgical posttraumatic postural
    potential potentially pouch pr practice precaution precautions preceding precise precisely preclude
    precludes predisposition predominance predominant predominantly preexisting pregnancy pregnant
    preliminary premature preop preoperative preoperatively prep preparation presence present presentation
    presented presenting presents preserved pressure presumably presume presumed presumptive prevertebral
    previous previously price primarily primary prince print prior priors probable probably problem
    problematic procedure procedures process processes produce produced product productive profile prognosis
    progress progressed progressing progression progressive progressively project projected projecting
    projection projections projects prominence prominent prominently prompt prone pronounced proper properly
    prostate prosthesis prosthetic protocol protrusion prove proven provide provided provider proximal
    proximally proximity pruning pseudotumor psoriasis ptx pulmonary pulmonic pull pulled pulmonale pulse
    pump puncture pure purpose purposes pus push pushed pyloric pyopneumothorax quadrant quality quantify
    quantity question questionable questioned quick quiet radial radiating radiation radiodense radiograph
    radiographic radiographically radiographs radiography radiologic radiological radiologist radiology
    radiolucency radiolucent radiopaque radius raise raised raises random range ranging rapid rapidly rare
    rarely rate rated ratio raw ray rays reach reached reaches reaching reaction reactive read reader
    reading readily real realignment really rear reason reasonable reasonably receive recent recently
    receiving recess recognized recommend recommendation recommendations recommended reconstruction record
    records recovered recovery recurrence recurrent red redemonstrated redemonstration redistribution reduce
    reduced reduction redundancy redundant reexpanded reexpansion refer reference referenced referred
    referring reflect reflected reflecting reflection reflects reflux region regional regions regress
    regression regular regurgitation relate related relates relating relation relationship relative
    relatively relaxed reliable remain remainder remained remaining remains remarkable remodeling remote
    remotely removal remove removed renal repair repaired repeat repeated repeating replaced replacement
    report reports reposition repositioned repositioning represent representation represented representing
    represents request requested require required requires resected resection residual resistance resolution
    resolve resolved resolving respect respectively respiration respiratory respond response rest result
    resultant resulted resulting results resuscitation retained retention reticular reticulation
    reticulonodular retracted retraction retrocardiac retroperitoneal retrosternal return reveal revealed
    reveals reverse review revision rheumatic rheumatoid rib ribs rich right rightward rim ring rise risk rn
    roadmap rock rod rods room root rose rotated rotation rotational rotator rotatory rough round rounded
    roundish routine rt rub rudimentary rule ruled run running runs rupture ruptured sac sacral sad safe
    sagittal salient salt sandwich sarcoid sarcoidosis sarcoma satisfactory saturation save scale scan scans
    scant scapula scapulae scapular scar scarred scarring scars scattered scimitar sclerosis sclerotic
    scoliosis scoliotic score screen screening screw screws search season seat secondarily secondary
    secretions section sections secure see seem seems segment segmental segments seldom selected selective
    self semi semierect semiupright senescent sense sensitive sensitivity sensor separate separated
    separately separation sepsis septa septal septic septum sequela sequelae sequence sequential serial
    series serious set setting settings severe severely severity shadow shadowing shadows shallow shape
    shaped sharp sharply sheath shield shielded shift shifted shifting shock short shorter shortly shortness
    shot shoulder shoulders show showed showing shown shows shrapnel shunt sick side sided sides sign signal
    significance significant significantly signs silhouette silhouetting silicosis similar similarly simple
    simply simulate single sinus sinuses site sites sitting situ situated situation situs size sized sizes
    skeletal skeleton skin slender slight slightly slow slowly small smaller smoke smoker smokers smoking
    smooth smoothly sob soft solid solitary sore sound source south space spaces spacing span sparing spasm
    special specific specifically specificity specimen spectrum spherical spiculated spiculation spicules
    spinal spindle spine spinous splaying spleen splenic splenomegaly splint split spondylitic spondylitis
    spondylolisthesis spondylosis spot spots spread spring spur spurring spurs sputum square stab stability
    stabilization stable stack stage staging standard standing staple staples star start started state
    static station stationary status stay steady stem stenosis stenotic stent stents step steps sternal
    sternotomy sternum still stomach stone stones stool stop straight straightening strain strand stranding
    strap streak streaking streaks streaky strength stress stretched striated stringy stripe stroke strong
    strongly structural structure structures studies study subacute subacromial subcarinal subcentimeter
    subchondral subclavian subcostal subcutaneous subdiaphragmatic subglottic subject submaximal suboptimal
    suboptimally subphrenic subpleural subpulmonic subsegmental subsequent subsequently subsided substance
    substantial substantially subtle subtotal subxiphoid succession successful sudden suffers sufficient
    suggest suggested suggesting suggestion suggestive suggests suitable sulci sulcus summation superficial
    superimposed superimposes superimposing superimposition superior superiorly supine supplied supply
    support supported supporting supports suppose supra supraclavicular suprahilar sure surface surfaces
    surgery surgeries surgical surgically surrounding survey suspect suspected suspicion suspicious
    suspected sutures suture svc swallow swallowed swan swelling symmetric symmetrical symmetrically
    symmetry symptom symptomatic symptoms syncope syndrome synostosis system systemic tachycardia tachypnea
    take taken talc tall tap taper tapered tapering target tb tear technical technically technique
    techniques technologist tee tension tent tented tenting term terminal terminate terminates terminating
    terms test tests tethering tetralogy therapeutic therapy thick thicken thickened thickening thickness
    thin thing things think thinned thinner thoracic thoracentesis thoracolumbar thoracoplasty thoracoscopy
    thoracostomy thoracotomy thorax thread threshold throat thrombosis thrombus thymic thymus thyroid
    thyroidectomy tibia tight tilt tilted time times tiny tip tips tissue tissues tk toe token tongue tool
    tooth top torso tortuosity tortuous total totally touch toxic tracheal trachea tracheobronchial
    tracheostomy tract traction train transbronchial transfer transferred transhiatal transient transit
    transition transjugular translucent transmission transparent transplant transplantation transported
    transverse transversely trapped trapping trauma traumatic traverse traverses traversing treat treated
    treatment trend triangle triangular tricuspid trigger true truly truncal trunk tube tubercle
    tuberculosis tuberculous tubes tubing tubular tumor tumors tumour tunneled turn twist twisted type types
    typical typically ulcer ulceration ultrasound umbilical unable unaffected uncertain unchanged unclear
    uncomplicated unconscious undefined underaerated underdeveloped underexposed underinflated underlie
    underlying undermine underpenetrated understanding undetermined undiagnosed undulating uneven unexpected
    unexplained unfolded unfolding uniform uniformly unilateral uninflated union unit units universal
    university unknown unremarkable unresponsive unsharpness unspecified unsure unusual upper uppermost
    upright upward urgent use used useful using usual uterine vague vaguely valve valves valvular variable
    variant variation varices varicose varied variety various varying vary vascular vascularity vasculature
    vast vein veins vena venous ventilated ventilation ventilator ventilatory ventral ventricle ventricles
    ventricular ventriculoperitoneal venules verge vertebra vertebrae vertebral vertebroplasty vertical
    vertically vessel vessels vicinity view viewed views violaceous viral virus visible visibly visit
    visualisation visualization visualize visualized vital void volume volumes volumetric vomiting vote
    waist wait walk wall walls ward warrant warranted wash watch water wave way weak weakness wear wedge
    wedged wedging week weeks weigh weight west wet wheeze wheezing white whole wide widely widened widening
    widespread width wild will window wire wires withdrawal withdrawn woman women wood wooden woods work
    worker working worrisome worse worsen worsened worsening worst wound wrist year years yield young
    younger zone zones abg afib aicd aka ards asd avf avr avm bmi bnp bp cad ckd cp cpa cpr csf cva cvc cvl
    cvp dvt ebv eg etoh ett ed esrd fna fx ggo gi gsw hcap htn ie ild ipf kvp lad lat lll lpo lul lv lvad mi
    mva mvr ngt ng nl nos npo nsclc ogt osa pcp pda pe pfo picu pna pod pt pts ra rao rlf rll rml rpo rul rv
    rvr sicu sp tavr tbna tia tlc tpn trach uri vats vsd vp wbc wnl xray fig figs figure figures celsius
    fahrenheit tmax human immunodeficiency candidiasis foley lovenox zosyn vancomycin levaquin azithromycin
    ceftriaxone metformin insulin lisinopril plavix aspirin tylenol alzheimer parkinson celiac sessile
    supple afebrile normocephalic korea china tel fax ext pager beeper mrn dob ssn acc phone email apt suite
    ref loc attn mrs ms drs thanksgiving doppler gram staphylococcus streptococcus klebsiella pseudomonas
    mycobacterium aspergillus pneumocystis legionella mycoplasma chlamydia cryptococcus nocardia actinomyces
    coccidioides blastomyces histoplasma candida covid coronavirus haemophilus lasix coumadin heparin
    warfarin amiodarone methotrexate remicade humira enbrel tamoxifen bleomycin prednisone amplatzer
    watchman impella blakemore sengstaken mahurkar permcath tesio hohn powerport zephyr micra heartmate
    heartware mitraclip corevalve cobb salter monteggia galeazzi hounsfield felson naclerio swyer castleman
    marfan ehlers danlos morquio hurler klippel feil sprengel poland horner virchow kaposi burkitt askin
    langerhans erdheim rosai dorfman ranke assmann rasmussen loeffler mounier kuhn windermere cooley fanconi
    whipple larrey nuss ravitch blalock taussig fontan senning rastelli norwood bentall dacron gore luque
    cotrel dubousset kirschner hoffa pellegrini stieda codman neer kienbock freiberg perthes osgood
    schlatter haglund blount legg calve veriphy primordial powerscribe chilaiditi meigs takayasu behcet
    wilms fleischner ebstein eisenmenger scimitar holt oram kerley potts waterston lutembacher bland garland
    anticipated maybe midsternal lumbosacral expansile intracranial centered diminutive syncopal cigarette
    hematemesis emesis immunosuppressed palpitation scleroderma achalasia based complains bihilar strandy
    midfoot hindfoot esophagogastric deformed homeless mortise hypercalcemia ureteral lightheaded
    hypoventilated constellation unavailable colorectal buckling vertigo densely depending bridging numbness
    reevaluate shortest manifestations stigmata cholelithiasis bmt cll allogeneic mvc sweats uti
    desaturation overnight dka seasonal ppd walking oxygenation inactive tnf micu nicu ccu pacu mdct hrct
    dexa bedside apparatus etiologically superimposing retropharyngeal precordial inspissated appear
    otherwise versus cardio silhouettes consists ago biapical onset endplate endplates bodies pre complaints
    op tobacco vehicle testicular convincing acromioclavicular bariatric defined assault tenderness workup
    headache noncalcified melanoma colon dedicated lab nonsmoker performed leukocytosis non dislocations
    margination seizure implantation ensure coughing collision abuse bladder postop convexity stimulator
    confusion tightness residuals sounds starting compartment nonproductive containing considerations
    receipt scheduled enhanced ovoid characterized broken accident colonic brain fibronodular pancreatic
    alternatively allergic ovarian inlet sent rectal hemodialysis prostheses synovial rectum retrolisthesis
    definitively conspicuous artifactual asymptomatic courses feels facility scaphoid background bibasal
    contain certainty ladder chemotherapy passed implantable intermittently muscles hospice noncontrast
    beginning dominant intravenous bochdalek morgagni inguinal laryngeal feeling arising laparoscopic
    suction fallot passive oval rales anchor vagal accounting dating earlier sixth grafting lymphoid
    injection thought dialysis sacrum sacroiliac conservative prolonged swimmer decompression pedestrian
    planning physicians institution employed production aorto extremely tripped benefit murmur adrenal
    cocaine moving obtain surveillance cerclage representative malfunction nose medicine detailed attached
    coracoid articular apnea duchenne tracking underneath kerley bochdalek hassan groshong ganz swan arnold
    chiari barrett pott dressler caplan pancoast hamman rich westermark palla fleischner luftsichel golden
    monod kartagener sjogren marfan crohn hodgkins nissen billroth belsey heimlich pleurx greenfield baker
    colles hill sachs bankart schmorl scheuermann paget ewing gaucher wegener churg strauss goodpasture
    osler weber rendu bjork shiley starr edwards carpentier hancock jude medtronic boston biotronik abbott
    """
)
"""``FUNCTION`` and what reports speak of."""

RADIOLOGY = CLINICAL | _words(
    """ address afternoon altogether ambulatory anesthesia apartment april arrive august bay beach blue box
    bridge burn burns bush call camp captain cash chair chance charge chief church city class coach coast
    code coffee color colour company cool corner cost cotton country county couple cover cream dance dawn
    dear december department desk detail district doctor dollar door dr drive drop dry dust ear ears east
    eye eyes face faces faith father february fire fish flag flood flower fly food forest fox friday friend
    gate gift girl glad gold golden grace grandmother grass guard hair hall happy hay heath hello help hills
    holly honor horse house ice institute ivy january job joy july june kid kids kitchen knight lady land
    law leave lily lord love mail march market mason master matt max meadow meal mercy meter mill mills
    mirror monday money mother mount mountain name names national november october ocean oil parent parents
    penny pepper phone piece pile plant pool pope pound powder power president prime private public queen
    rain rainbow reed reid resident rice river road robin ruby saint sand saturday school sea september
    service shell ship shore silver sister sky smart snow son song spouse stack sterling steel storm story
    stream street strict sugar summer sun sunday sunny table tailor teacher team thursday tire town tree
    trip truck tuesday valley van victory village violet wagner wall walker warm wednesday wells welcome
    wife wing winter wise wolf world worth """
)
"""``CLINICAL`` and plain English that is in names of people and hospitals; lower case."""

PARTICLES = _words(
    """ van von der den de del della di da dos das du la le les el al bin ibn ben abu ter ten zu zur vom mac
    mc st san """
)
"""Small words within family names; never a name on their own."""

TITLES = _words(
    """ mr mrs ms miss dr drs doctor prof professor md mds phd do jr sr ii iii iv v rn np pa mbbs mbchb frcr
    frcp frcs facr dipl med herr frau mme mlle sir lady rev """
)
"""What stands before or behind a name and is none."""
