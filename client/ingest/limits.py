"""What reading one file may cost. Everything that grows with a number in the file has its cap here."""

from __future__ import annotations

from models.config import config

MIB = 1 << 20


@config
class Limits:
    """Caps on one DICOM file and on the child process that reads it.

    The largest radiographs in use are about 20 megapixels of 16 bits (40 MB); the defaults leave twice that.
    """

    file_bytes: int = 256 * MIB  # size on disk
    inflated_bytes: int = 256 * MIB  # size of a deflated data set once inflated
    inflate_ratio: int = 200  # inflated / deflated; a real radiograph stays below 20
    nesting: int = 64  # sequences inside sequences
    elements: int = 100_000  # data elements met while walking; a radiograph has some hundreds
    pixels: int = 50_000_000  # rows x columns x frames x samples, before anything is allocated
    memory_bytes: int = 2048 * MIB  # address space of the child (RLIMIT_AS)
    cpu_seconds: int = 20  # processor time for one file (RLIMIT_CPU)
    wall_seconds: float = 30.0  # time for one file; up to ten times that while the child is seen at work
    files_per_child: int = 2000  # then a fresh child takes over, so that no slow leak adds up

    def check(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name}: {value} is not allowed; give a number above 0")
        if self.memory_bytes < 512 * MIB:
            raise ValueError(
                f"memory_bytes: {self.memory_bytes} is too little; the decoders alone map about 400 MiB, "
                f"give at least {512 * MIB}"
            )
