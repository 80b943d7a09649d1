# The other team's producer: python -m examples.files.producer FOLDER... tells what the workers found in each file.
import asyncio
import sys
import time
from hashlib import sha256
from pathlib import Path

from bridge import observe
from examples.files.contract import COUNT
from producers import BridgeError, Producer

AT_ONCE = 32


def read(folders: list[str]) -> list[tuple[str, bytes]]:
    found = [path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return [(str(path), path.read_bytes()) for path in found]


async def one(relay: Producer, slots: asyncio.Semaphore, name: str, data: bytes) -> bool:
    async with slots:
        try:
            job = await relay.submit(COUNT, data, deadline=120)
            counts = await job.result(timeout=120)
        except BridgeError as error:
            print(f"{name[-44:]:44} {type(error).__name__}: {error}")
            return False
    right = counts.sha256 == sha256(data).hexdigest()
    verdict = "right" if right else "WRONG"
    print(f"{name[-44:]:44} {counts.lines:7} {counts.words:7}  {counts.sha256[:16]}  {verdict}")
    return right


async def main(files: list[tuple[str, bytes]]) -> int:
    began, slots = time.perf_counter(), asyncio.Semaphore(AT_ONCE)
    print(f"{'file':44} {'lines':>7} {'words':>7}  {'sha256':16}  answer")
    async with Producer.from_env() as relay:
        right = await asyncio.gather(*(one(relay, slots, name, data) for name, data in files))
    print(f"{len(files)} jobs, {sum(right)} answered rightly, in {time.perf_counter() - began:.2f} s")
    return 0 if files and all(right) else 1


if __name__ == "__main__":
    observe.configure(level="warning")
    sys.exit(asyncio.run(main(read(sys.argv[1:]))))
