"""The plan of a run: one YAML, loaded strictly, the same object on the server and at each virtual site.

name: demo
seed: 7
model: {vision: {name: vit, image_size: 64, patch: 8, width: 128, depth: 4, heads: 4}}
phases:
  - name: diagnosis
    rounds: 8
    objective: {name: diagnosis, findings: [Cardiomegaly], size: 64}
    local: {epochs: 1}
    rule: {name: mean}
federation: {quorum: 0.5, deadline_seconds: 600}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from models.config import ConfigError, build, config, config_hash, override, read_yaml
from models.evaluation.spoilt_films import Robustness
from models.loop import LoopConfig
from models.model import CxrModel, ModelConfig, initial_model
from models.registry import Plugin, configure
from models.studies.partition import Partition
from strategies.adapters import COMPONENT
from strategies.exchange import Exchange
from strategies.guard import GuardConfig

Arm = Literal["federated", "local", "pooled"]


_SAMPLE = f"{COMPONENT}/layers.0.self_attn.q_proj.lora_A.weight"


def _rule(values: Any) -> Any:
    return None if values is None else configure("strategies.rules", values)


@config
class Phase:
    """An objective with its rounds.

    rule: how updates are combined; null for ``alternate`` where adapters travel, else ``mean``. server: how the server
    itself trains, after each round, on labelled films of its own; null if it has none.
    """

    name: str
    rounds: int
    objective: Plugin("models.objectives")  # type: ignore[valid-type]
    local: LoopConfig
    rule: Annotated[Any, BeforeValidator(_rule)] = None
    exchange: Exchange = Exchange()
    server: LoopConfig | None = None

    def check(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds {self.rounds}: at least 1")
        objective = self.objective.build()
        travelling = self.exchange.travelling(objective.trains)
        if self.rule is None:
            name = "alternate" if COMPONENT in travelling else "mean"
            object.__setattr__(self, "rule", configure("strategies.rules", {"name": name}))
        self._check_adapters(COMPONENT in travelling)
        if self.local.compile and getattr(objective, "in_parts", False):
            raise ConfigError(
                f"local.compile true and objective {self.objective.name!r}: its step comes in parts, which torch.compile "
                f"does not take; leave compile off"
            )

    def _check_adapters(self, travel: bool) -> None:
        if travel != self.rule.build().adapters:
            raise ConfigError(
                f"rule {self.rule.name!r} and component {COMPONENT!r}: "
                + (
                    "averaging A and B apart is not averaging the models; take 'alternate', which is exact (or 'average' "
                    "with allow_biased: true)"
                    if travel
                    else "a rule for adapters, and none travel in this phase; take 'mean'"
                )
            )
        held = next((p for p in self.exchange.keep if fnmatchcase(_SAMPLE, p) or p.startswith(COMPONENT)), None)
        if travel and held:
            raise ConfigError(f"exchange.keep {held!r}: holds back factors of adapters, which only combine as a whole")
        if travel and self.server:
            raise ConfigError(
                f"server and rule {self.rule.name!r}: the server's own lesson would move both factors after they were combined"
            )

    def at_server(self) -> Any:
        """The objective's config for the server's own labelled films."""
        return self.objective.at_server() if hasattr(self.objective, "at_server") else self.objective


@config
class Federation:
    """Who must be there, and how long we wait.

    min_sites: sites that must have joined before the run starts.
    quorum: share of the joined sites whose good replies a round needs; below it the round changes nothing.
    max_failed_rounds: rounds in a row without quorum after which the run ends as failed.
    wait_seconds: how long to wait for ``min_sites`` at the start; deadline_seconds: for the replies of a round.
    first_deadline_seconds: for the first answer of all, which may have to build a site's store.
    """

    min_sites: int = 1
    quorum: float = 0.5
    max_failed_rounds: int = 3
    wait_seconds: float = 120.0
    deadline_seconds: float = 3600.0
    first_deadline_seconds: float = 3600.0

    def check(self) -> None:
        if self.min_sites < 1:
            raise ConfigError(f"min_sites {self.min_sites}: at least 1")
        if not 0 < self.quorum <= 1:
            raise ConfigError(f"quorum {self.quorum}: a share in (0, 1]")
        for name in ("wait_seconds", "deadline_seconds", "first_deadline_seconds", "max_failed_rounds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must be positive")


@config
class Evaluation:
    """The shared protocol. ``split`` is what every model is judged on; training patients are never in it.

    min_cell: fewest positives and negatives a site must have before it reports a finding (a site's own policy may ask
    for more). replicates: bootstrap resamples of patients. reference: name of a phase; the model at its end is what
    every later round is compared with, on the same images, by DeLong's test. robustness: strengths of noise, blur,
    contrast and brightness at which the models at the end of the run, and of that phase, are judged too; null for none.
    """

    split: Literal["validation", "test"] = "validation"
    every: int = 1
    replicates: int = 1000
    min_cell: int = 5
    batch_size: int = 128
    reference: str | None = None
    robustness: Robustness | None = None

    def check(self) -> None:
        if self.every < 1 or self.batch_size < 1:
            raise ConfigError(f"every {self.every} and batch_size {self.batch_size}: at least 1 each")
        if self.replicates < 100:
            raise ConfigError(f"replicates {self.replicates}: at least 100, or the interval means nothing")


@config
class PhantomData:
    """Generated patients: ``styles`` names one phantom hospital each; ``patients`` is per hospital; ``mildest`` is the
    least severity (0 to 0.8) of a present finding: 0.25 is as subtle as the hospitals come, 0.6 learns in a minute."""

    styles: tuple[str, ...]
    patients: int = 200
    short_side: int = 128
    mildest: float = 0.25

    def check(self) -> None:
        if self.patients < 1 or not self.styles:
            raise ConfigError(f"patients {self.patients} and styles {list(self.styles)}: at least one of each")


@config
class LayoutData:
    """A folder below the run's ``data`` folder, read with a layout of configs/layouts."""

    layout: str
    folder: str = "."


@config
class Simulation:
    """Virtual sites on one machine: where the images come from, and who holds which patients.

    Give exactly one of ``phantom``, ``imports`` (folders below ``data``) or ``store`` (``data`` is a study store).
    """

    phantom: PhantomData | None = None
    imports: tuple[LayoutData, ...] = ()
    store: bool = False
    short_side: int = 512
    views: tuple[Literal["PA", "AP", "LATERAL", "UNKNOWN"], ...] = ("PA", "AP", "UNKNOWN")
    """Only films of these views take part; by default no lateral."""
    mentions: tuple[str, ...] = ()
    """Only films that have a label, of any kind, for one of these findings take part; empty for all. It is asked before
    ``labelled`` withholds any."""
    partition: Partition = Partition()
    labelled: dict[str, float] | None = None
    """Share of the training patients of each site whose labels are known; a site that is not named has no label. Null:
    all labels are known. Held-out patients keep theirs."""
    corrupt_labels: float = 0.0
    """Share of each site's labelled training films, drawn by hash and seed, that have all their answers (present, absent)
    turned round: how much wrong labels cost. What lies at the server, and what is held out, keeps its labels."""
    lora_ranks: dict[str, int] = field(default_factory=dict)
    """Rank of the adapters at a site, as a hospital's own configuration would have it; the model's where none is given."""
    server: float = 0.0
    """Share of all training patients whose films and labels lie at the server instead of at a site."""
    fractions: dict[Literal["train", "validation", "test"], float] = field(
        default_factory=lambda: {"train": 0.7, "validation": 0.3, "test": 0.0}
    )

    def check(self) -> None:
        given = [n for n in ("phantom", "imports", "store") if getattr(self, n)]
        if len(given) != 1:
            raise ConfigError(
                f"phantom, imports, store: give exactly one source of images; given: {', '.join(given) or 'none'}"
            )
        for site, share in (self.labelled or {}).items():
            if not 0 <= share <= 1:
                raise ConfigError(f"labelled.{site} {share}: a share in [0, 1]")
        if not 0 <= self.corrupt_labels <= 1:
            raise ConfigError(f"corrupt_labels {self.corrupt_labels}: a share in [0, 1]")
        if not 0 <= self.server < 1:
            raise ConfigError(f"server {self.server}: a share in [0, 1)")
        if not self.fractions.get("train"):
            raise ConfigError(f"fractions {self.fractions}: 'train' needs a share, or nothing is learnt")
        if abs(sum(self.fractions.values()) - 1) > 1e-6 or min(self.fractions.values()) < 0:
            raise ConfigError(f"fractions {self.fractions}: must not be negative and must sum to 1")


@config
class RunConfig:
    """One run, whole. ``arms``: what is trained side by side, with the same budget and seed, to tell who gains.
    checkpoints: how many of the last rounds to keep; 0 for all."""

    name: str
    seed: int = 0
    model: ModelConfig
    phases: tuple[Phase, ...]
    federation: Federation = Federation()
    guard: GuardConfig = GuardConfig()
    evaluation: Evaluation = Evaluation()
    arms: tuple[Arm, ...] = ("federated",)
    checkpoints: int = 2
    simulation: Simulation | None = None

    def check(self) -> None:
        if not self.phases:
            raise ConfigError("phases: empty; a run has at least one phase")
        phase_names = [p.name for p in self.phases]
        if len(set(phase_names)) != len(phase_names):
            raise ConfigError(f"phases {phase_names}: a name stands twice")
        if "federated" not in self.arms:
            raise ConfigError(f"arms {list(self.arms)}: 'federated' is missing; the other arms are compared with it")
        if "pooled" in self.arms and self.simulation is None:
            raise ConfigError("arms 'pooled' and no 'simulation': patients of real hospitals are never pooled")
        self._check_shared_heads()
        self._check_server()
        self._check_adapters()
        self._check_robustness()
        reference = self.evaluation.reference
        if reference is not None and reference not in phase_names:
            raise ConfigError(f"evaluation.reference {reference!r}: no phase of that name; one of {phase_names}")
        split = self.evaluation.split
        if self.simulation and not self.simulation.fractions.get(split):
            raise ConfigError(
                f"evaluation.split {split!r} and simulation.fractions {self.simulation.fractions}: "
                f"no patient is in that split; give it a share"
            )
        patch = getattr(self.model.vision, "patch", 1)
        for phase in self.phases:
            sizes = getattr(phase.objective, "sizes", (getattr(phase.objective, "size", None),))
            for key, size in zip(("size", "local_size"), sizes):
                if size and size % patch:
                    raise ConfigError(
                        f"phases.{phase.name}.objective.{key} {size} and model.vision.patch {patch}: the patch must "
                        f"divide the size"
                    )

    def settled(self, phase: Phase, names: Iterable[str]) -> set[str]:
        """Those of the model's tensor ``names`` that travelled in a phase before ``phase`` and are of components that it
        does not train: every site must build on what was agreed there, not on what it had when it last trained."""
        trains, found = set(phase.objective.build().trains), set()
        for earlier in self.phases[: [p.name for p in self.phases].index(phase.name)]:
            components = earlier.exchange.travelling(earlier.objective.build().trains)
            travelled = earlier.exchange.select({n: None for n in names if n.split("/")[0] in components})
            found |= {name for name in travelled if name.split("/")[0] not in trains}
        return found

    def _check_shared_heads(self) -> None:
        """Phases with one objective share its heads, so what shapes these must agree."""
        first_of: dict[str, Phase] = {}
        for phase in self.phases:
            first = first_of.setdefault(phase.objective.name, phase)
            for key in getattr(phase.objective, "same_in_all_phases", ("findings",)):
                if getattr(first.objective, key, None) != getattr(phase.objective, key, None):
                    raise ConfigError(
                        f"phases.{first.name}.objective.{key} and phases.{phase.name}.objective.{key}: "
                        f"differ, but both train head {phase.objective.name!r}; make them the same"
                    )

    def _check_server(self) -> None:
        trains = [phase.name for phase in self.phases if phase.server]
        if self.simulation and trains and not self.simulation.server:
            raise ConfigError(
                f"phases.{trains[0]}.server and simulation.server 0: the server has no films to train on; give it a share"
            )
        if self.simulation and self.simulation.server and not trains:
            raise ConfigError(
                f"simulation.server {self.simulation.server} and no phase with 'server': those patients would be lost; "
                f"say in a phase how the server trains"
            )

    def _check_robustness(self) -> None:
        if self.evaluation.robustness is None:
            return
        if self.simulation is None:
            raise ConfigError("evaluation.robustness and no 'simulation': the server has no films to judge by")
        for phase in self.phases_judged_spoilt:
            if not hasattr(phase.objective.build(), "logits"):
                raise ConfigError(
                    f"evaluation.robustness and phases.{phase.name}.objective {phase.objective.name!r}: films are spoilt, "
                    f"and this objective finds nothing on films"
                )

    @property
    def phases_judged_spoilt(self) -> tuple[Phase, ...]:
        """The phases whose last models are judged on spoilt films, if ``evaluation.robustness`` asks for it."""
        return tuple(p for p in self.phases if p is self.phases[-1] or p.name == self.evaluation.reference)

    def _check_adapters(self) -> None:
        lora = self.model.text.lora if self.model.text else None
        ranks = self.simulation.lora_ranks if self.simulation else {}
        if ranks and lora is None:
            raise ConfigError("simulation.lora_ranks and no model.text.lora: there are no adapters to have a rank")
        for site, rank in ranks.items():
            if not 1 <= rank <= lora.rank:
                raise ConfigError(
                    f"simulation.lora_ranks.{site} {rank} and model.text.lora.rank {lora.rank}: the model's is the largest"
                )
        for phase in self.phases:
            rule = phase.rule.build()
            other = next((f"{site} {rank}" for site, rank in ranks.items() if rank != lora.rank), None)
            if not rule.adapters:
                if other and COMPONENT in phase.objective.build().trains:
                    raise ConfigError(
                        f"phases.{phase.name} and simulation.lora_ranks.{other}: adapters that stay have no rule"
                    )
                continue
            if lora is None:
                raise ConfigError(f"phases.{phase.name}: trains {COMPONENT!r}, and model.text.lora is not given")
            if other and not rule.mixed:
                raise ConfigError(
                    f"phases.{phase.name}.rule {phase.rule.name!r} and simulation.lora_ranks.{other}: it takes one rank for "
                    f"all sites, {lora.rank}; 'stack' and 'svd' take several"
                )
            if rule.folds and self.model.text.dtype == "bfloat16":
                raise ConfigError(
                    f"phases.{phase.name}.rule {phase.rule.name!r} and model.text.dtype 'bfloat16': what is folded into such "
                    f"weights is lost to rounding; take float32, or another rule"
                )

    @property
    def hash(self) -> str:
        return config_hash(self)

    def new_model(self) -> CxrModel:
        """The model that every arm and site of this run starts from."""
        return initial_model(self.model, [phase.objective.build() for phase in self.phases], self.seed)


def load_run(path: Path, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read a run YAML and apply dotted overrides such as ``{"phases.0.rounds": 3}``.

    Raises:
        ConfigError: naming the file and every mistake in it.
    """
    values = read_yaml(path)
    for dotted, value in (overrides or {}).items():
        override(values, dotted, value)
    try:
        return build(RunConfig, values)
    except ConfigError as error:
        raise ConfigError(f"{path.name}:\n  " + str(error).replace("\n", "\n  ")) from None
