"""The cohort that training takes where it is given none: phantoms in runs/embedded."""

from pathlib import Path

from jaxreg import distributed
from jaxreg.configuration.training import EMBEDDED
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.io.atomic import require_writable
from jaxreg.progress import SILENT, Progress


def embedded_cohort(*, progress: Progress = SILENT) -> Path:
    """The folder of the embedded phantom cohort, made (by process 0) where it is not there yet."""

    def made() -> str:
        if not (EMBEDDED / "participants.tsv").is_file():
            require_writable(EMBEDDED)
            print(f"making the embedded cohort in {EMBEDDED} (once)", flush=True)
            EMBEDDED.parent.mkdir(parents=True, exist_ok=True)
            with progress.phase("embedded cohort", announced=False):
                write_phantom_cohort(EMBEDDED, shape=(48, 48, 48), spacing_mm=4.0)
        return str(EMBEDDED)

    return Path(distributed.broadcast_from_primary(made))
