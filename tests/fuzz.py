"""Feed a reader with files that were made wrong, and look for tracebacks, hangs and lost rows.

Each reader of tests/support/fuzz_readers.py has valid files, of which one at a time is changed:
bytes by atheris, which is led by the lines of foretune that it reaches, or values by hypothesis
(`--tool hypothesis`; for the readers study, table, parquet and npy). A reader has to give the right
result or a ForetuneError that names what is wrong. A fault is anything else: another exception, an
AssertionError of the reader's own check of the result, 10 seconds of processor time, a crash of the
process, or more than 2 GB of memory. Faults of one kind are counted; their first input is kept.

It is no part of `make test`. atheris comes from PyPI and is not among foretune's packages:
`.venv/bin/pip install atheris; .venv/bin/python tests/fuzz.py --reader tar --seconds 600`.
`--input FILE` reads one kept input again and shows its traceback.
"""

import argparse
import contextlib
import hashlib
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
os.environ.update({  # a library's arenas of address space would count as memory
    "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
})  # fmt: skip
sys.path[:0] = [str(ROOT / "workflow_scripts"), str(ROOT / "tests/support")]
LONGEST, LARGEST = 10, 2 << 30  # seconds without an end, bytes of memory


class Files(dict):
    """Contents by file name; hypothesis would print them with each strategy."""

    def __repr__(self) -> str:
        return "files"


class Fuzzer:
    """A reader with its files, and the faults found.

    An input is a byte for the file that is changed, and its content.
    """

    def __init__(self, name: str, scratch: Path, output: Path):
        # atheris follows only the modules that are imported here.
        with contextlib.suppress(ImportError):
            atheris = importlib.import_module("atheris")
            with atheris.instrument_imports(include=["foretune"]):
                importlib.import_module("fuzz_readers")
        from fuzz_readers import READERS

        self.reader, self.output, self.scratch = READERS[name], output, scratch
        (scratch / "count").touch()
        self.pristine, self.folder = scratch / "pristine", scratch / "study"
        self.pristine.mkdir(parents=True, exist_ok=True)
        seeds = list(self.reader.make(self.pristine))
        self.names = sorted(dict.fromkeys(name for name, _ in seeds))
        self.seeds = [bytes([self.names.index(name)]) + content for name, content in seeds]
        self.files = Files(
            (str(path.relative_to(self.pristine)), path.read_bytes())
            for path in self.pristine.rglob("*") if path.is_file()
        )  # fmt: skip

    def unpack(self, item: bytes) -> dict[str, bytes]:
        """Return the changed file of an input and its content."""
        name, content = self.names[(item or b"\0")[0] % len(self.names)], item[1:]
        if self.reader.mend and len(item) % 2:
            content = self.reader.mend(content)
        return {name: content}

    def read(self, changed: dict[str, bytes]) -> None:
        """Read the files once, with a change. Raises what the reader raises."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path, kept in {**self.files, **changed}.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(kept)
        self.reader.read(self.folder)

    def find_fault(self, item: bytes) -> str | None:
        """Return the traceback of a fault, or None."""
        from foretune.core.errors import ForetuneError
        from foretune.core.files import explain_disk_error

        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                self.read(self.unpack(item))
        except ForetuneError as error:
            lines = str(error).split("\n")
            shown = all(unicodedata.category(c) not in ("Cc", "Cs") for c in "".join(lines))
            if not shown or not lines[0].strip() or len(lines) > 50 or max(map(len, lines)) > 2000:
                return traceback.format_exc() + "\nthe message is no readable line"
        except Exception as error:
            if not isinstance(error, OSError) or explain_disk_error(error) is None:
                return traceback.format_exc()
        return None

    def try_input(self, item: bytes) -> None:
        """Read an input, and keep it if it is the first of its kind of fault."""
        item = bytes(item)
        (self.scratch / "input").write_bytes(item)
        with open(self.scratch / "count", "ab") as count:
            count.write(b".")
        signal.setitimer(signal.ITIMER_PROF, LONGEST)  # SIGPROF ends a process that takes longer
        if fault := self.find_fault(item):
            keep(self.output, item, fault)


def keep(output: Path, item: bytes, fault: str) -> None:
    """Keep an input by the kind of its fault: the last line of foretune in it, and the error."""
    lines = fault.splitlines()
    places = [line for line in lines if "/foretune/" in line or "fuzz_readers" in line][-1:]
    kind = hashlib.sha256("".join([*places, lines[-1].split(":")[0]]).encode()).hexdigest()[:10]
    output.mkdir(parents=True, exist_ok=True)
    with open(output / f"{kind}.count", "ab") as count:
        count.write(b".")
    if not (output / f"{kind}.txt").exists():
        (output / f"{kind}.bin").write_bytes(item)
        (output / f"{kind}.txt").write_text(fault)


def limit_memory() -> None:
    """Allow the process LARGEST bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + LARGEST
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run_atheris(fuzzer: Fuzzer, seconds: float, seed: int) -> None:
    """Mutate bytes until the time is up; the process ends with it."""
    atheris = importlib.import_module("atheris")
    corpus = fuzzer.scratch / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, item in enumerate(fuzzer.seeds):
        (corpus / f"seed{number}").write_bytes(item)
    longest = 2 * max(map(len, fuzzer.seeds))
    options = [f"-max_total_time={max(1, seconds):.0f}", f"-seed={seed}", f"-max_len={longest}",
               "-timeout=999", "-rss_limit_mb=0", "-malloc_limit_mb=0", "-verbosity=0",
               "-len_control=0"]  # fmt: skip
    atheris.Setup([sys.argv[0], str(corpus), *options], fuzzer.try_input)
    atheris.Fuzz()


def run_hypothesis(fuzzer: Fuzzer, seconds: float, seed: int) -> None:
    """Make files of wrong values until the time is up."""
    import hypothesis

    end = time.monotonic() + seconds
    for number in range(10**9):

        @hypothesis.seed(seed * 1000 + number)
        @hypothesis.settings(max_examples=500, database=None, deadline=None,
                             phases=[hypothesis.Phase.generate],
                             suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
        @hypothesis.given(fuzzer.reader.values(fuzzer.files))
        def run(item):
            if time.monotonic() > end:
                os._exit(0)
            name, content = item
            fuzzer.try_input(bytes([fuzzer.names.index(name)]) + content)

        run()


def watch(fuzzer: Fuzzer, run: Callable, seconds: float, seed: int) -> None:
    """Fork workers until the time is up; a worker that hangs or crashes is a fault."""
    last, end, number = fuzzer.scratch / "input", time.time() + seconds, 0
    while time.time() < end - 1:
        number += 1
        last.write_bytes(b"")
        worker = os.fork()
        if not worker:
            with open(fuzzer.scratch / "printed", "wb") as printed:
                os.dup2(printed.fileno(), 2)
            limit_memory()
            run(fuzzer, end - time.time(), 100 * seed + number)
            os._exit(0)
        code = None
        while code is None:
            time.sleep(0.2)
            idle = time.time() - last.stat().st_mtime
            if idle > 12 * LONGEST or time.time() > end + 3 * LONGEST:
                os.kill(worker, signal.SIGKILL)
                if idle > 12 * LONGEST:
                    keep(fuzzer.output, last.read_bytes(), f"no end after {idle:.0f} s\nidle")
            done, status = os.waitpid(worker, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if done else None
        if code == -signal.SIGPROF:
            keep(fuzzer.output, last.read_bytes(), f"{LONGEST} s of processor time\nhang")
        elif code not in (0, -signal.SIGKILL):
            printed = (fuzzer.scratch / "printed").read_text(errors="replace")
            keep(fuzzer.output, last.read_bytes(), f"{printed[-9000:]}\ncrash, code {code}")


def work() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reader", nargs="+", required=True)
    parser.add_argument("--tool", choices=("atheris", "hypothesis"), default="atheris")
    parser.add_argument("--seconds", type=float, default=600, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("fuzz"), help="folder of the faults")
    parser.add_argument("--input", type=Path, help="an input to read again")
    args = parser.parse_args()
    item, top = args.input and args.input.read_bytes(), args.output.absolute()
    os.chdir(ROOT)  # the paths of the bundled studies begin here
    run = run_atheris if args.tool == "atheris" else run_hypothesis
    for name in args.reader:
        with tempfile.TemporaryDirectory(prefix="fuzz", dir="/dev/shm") as scratch:
            output, started = top / f"{name}-{args.tool}", time.time()
            fuzzer = Fuzzer(name, Path(scratch), output)
            if item:
                print(fuzzer.find_fault(item) or "no fault")
                continue
            fuzzer.read({})  # the valid files are read without an error
            watch(fuzzer, run, args.seconds, args.seed)
            runs, seconds = (Path(scratch) / "count").stat().st_size, time.time() - started
        kinds = sorted(output.glob("*.txt"))
        print(f"| {name} | {args.tool} | {seconds:.0f} | {runs} | {len(kinds)} |", flush=True)
        for path in kinds:
            times = path.with_suffix(".count").stat().st_size
            print(f"{path}: {times} times: {path.read_text().splitlines()[-1][:200]}", flush=True)


if __name__ == "__main__":
    work()
