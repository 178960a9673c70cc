"""The peers of Python: `python3 peers.py MEASUREMENT [--test]` prints what it found as one line of JSON.

`python3 peers.py real ROW FOLDER TASKS [--test]` prints its workers, then runs a side for each line that it reads.

Seconds, tasks per second, bytes per second and bytes, under the names that `rows.rs` asks for. A package that is not here gives
`{"missing": "why"}`. Each peer is used as its own documentation does, with two worker processes where it is about throughput.
"""

import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import time
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

TEST = "--test" in sys.argv
LARGE_BYTES = 64 << 20
REST = 0.010


def add_one(n):
    return n + 1


def spin(rounds):
    x = 1
    for n in range(rounds):
        x = (x * 6364136223846793005 + n) & 0xFFFFFFFFFFFFFFFF
    return x


def pid(_=None):
    # Long enough for each worker to have one.
    time.sleep(0.01)
    return os.getpid()


def echo(value):
    return value


def tasks(full):
    return min(max(full // 1000, 20), 2000) if TEST else full


def samples(full):
    return 2 if TEST else full


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def rate(full, run):
    """Tasks per second: a tenth of them to warm up, then the median of as many runs as half a second allows, but one."""
    count = tasks(full)
    run(-(-count // 10))
    rates = []
    begun = time.perf_counter()
    while not rates or (not TEST and len(rates) < 5 and time.perf_counter() - begun < 0.5):
        rates.append(count / timed(lambda: run(count)))
    return {"rate": statistics.median(rates)}


def hot(calls, call):
    calls = samples(calls)
    for _ in range(calls // 10):
        call()
    return statistics.median(timed(call) for _ in range(calls))


def rested(call):
    call()
    times = []
    for _ in range(samples(100)):
        time.sleep(REST)
        times.append(timed(call))
    return statistics.median(times)


def latency(calls, call):
    return {"hot": hot(calls, call), "rested": rested(call)}


def throughput(count, run):
    run()
    begun = time.perf_counter()
    times = []
    while not times or (len(times) < samples(7) and time.perf_counter() - begun < 3):
        times.append(timed(run))
    return count / statistics.median(times)


def gain(one, two):
    one()
    two()
    begun = time.perf_counter()
    alone, together = [], []
    while not alone or (len(alone) < samples(7) and time.perf_counter() - begun < 3):
        alone.append(timed(one))
        together.append(timed(two))
    return {"gain": statistics.median(alone) / statistics.median(together)}


def resident(process):
    with open(f"/proc/{process}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return {"resident": int(line.split()[1]) << 10}


def check(count):
    """Asserts that results are those of `add_one`, in order, and outside what is timed only as far as it is cheap."""

    def checked(results):
        results = results if isinstance(results, list) else list(results)
        assert len(results) == count and results[0] == 1 and results[-1] == count

    return checked


# multiprocessing.Pool


def pool_map():
    with multiprocessing.Pool(2) as pool:
        return rate(2_000_000, lambda n: check(n)(pool.map(add_one, range(n))))


def pool_imap():
    with multiprocessing.Pool(2) as pool:
        return rate(2_000_000, lambda n: check(n)(pool.imap(add_one, range(n), chunksize=10_000)))


def pool_imap_single():
    with multiprocessing.Pool(2) as pool:
        return rate(30_000, lambda n: check(n)(pool.imap(add_one, range(n))))


def pool_calls():
    with multiprocessing.Pool(2) as pool:

        def run(n):
            handles = [pool.apply_async(add_one, (i,)) for i in range(n)]
            check(n)([handle.get() for handle in handles])

        return rate(30_000, run)


def pool_latency():
    with multiprocessing.Pool(1) as pool:
        return latency(2_000, lambda: pool.apply(add_one, (1,)))


def first_result(method):
    start = time.perf_counter()
    pool = multiprocessing.get_context(method).Pool(1)
    assert pool.apply(add_one, (1,)) == 2
    took = time.perf_counter() - start
    pool.terminate()
    pool.join()
    return took


def pool_start():
    return {
        method: statistics.median(first_result(method) for _ in range(samples(count)))
        for method, count in (("fork", 20), ("spawn", 7))
    }


def pool_start_large():
    size = (4 << 30) // (100 if TEST else 1)
    with open("/proc/meminfo") as info:
        free = next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable:"))
    if free < size + (2 << 30):
        return {"missing": f"4 GiB are wanted, with some to spare; {free / (1 << 30):.1f} GiB are free"}
    ballast = b"\1" * size
    figure = statistics.median(first_result("fork") for _ in range(samples(5)))
    assert ballast[-1] == 1
    return {"fork": figure}


def pool_large():
    data = b"\7" * (LARGE_BYTES // (100 if TEST else 1))
    with multiprocessing.Pool(1) as pool:
        there = throughput(len(data), lambda: pool.apply(len, (data,)))
        echoed = throughput(len(data), lambda: pool.apply(echo, (data,)))
    return {"there": there, "echoed": echoed}


def spins():
    return [300 if TEST else 50_000] * 64


def pool_two():
    with multiprocessing.Pool(1) as one, multiprocessing.Pool(2) as two:
        return gain(lambda: one.map(spin, spins(), chunksize=1), lambda: two.map(spin, spins(), chunksize=1))


def pool_rest():
    with multiprocessing.Pool(1) as pool:
        check(tasks(100_000))(pool.map(add_one, range(tasks(100_000))))
        process = pool.apply(pid)
        time.sleep(0.1)
        return resident(process)


# concurrent.futures


def futures_map():
    with ProcessPoolExecutor(2) as pool:
        return rate(1_000_000, lambda n: check(n)(pool.map(add_one, range(n), chunksize=10_000)))


def futures_map_single():
    with ProcessPoolExecutor(2) as pool:
        return rate(10_000, lambda n: check(n)(pool.map(add_one, range(n))))


def futures_calls():
    with ProcessPoolExecutor(2) as pool:

        def run(n):
            handles = [pool.submit(add_one, i) for i in range(n)]
            check(n)([handle.result() for handle in handles])

        return rate(10_000, run)


def futures_latency():
    with ProcessPoolExecutor(1) as pool:
        return latency(2_000, lambda: pool.submit(add_one, 1).result())


def futures_start():
    def first():
        start = time.perf_counter()
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        assert pool.submit(add_one, 1).result() == 2
        took = time.perf_counter() - start
        pool.shutdown()
        return took

    return {"fork": statistics.median(first() for _ in range(samples(20)))}


def futures_large():
    data = b"\7" * (LARGE_BYTES // (100 if TEST else 1))
    with ProcessPoolExecutor(1) as pool:
        there = throughput(len(data), lambda: pool.submit(len, data).result())
        echoed = throughput(len(data), lambda: pool.submit(echo, data).result())
    return {"there": there, "echoed": echoed}


# joblib


def joblib_parallel(jobs):
    joblib = importlib.import_module("joblib")
    # Used as a context, it keeps its workers from one call to the next.
    return joblib.Parallel(n_jobs=jobs), joblib.delayed


def joblib():
    parallel, delayed = joblib_parallel(2)
    with parallel:
        return rate(200_000, lambda n: check(n)(parallel(delayed(add_one)(i) for i in range(n))))


def joblib_two():
    # `Parallel(n_jobs=1)` would run in this process, so joblib's own executor is asked for one worker, then for two.
    loky = importlib.import_module("joblib.externals.loky")

    def median_time(jobs):
        with loky.ProcessPoolExecutor(max_workers=jobs) as pool:
            list(pool.map(spin, spins()))
            return statistics.median(timed(lambda: list(pool.map(spin, spins()))) for _ in range(samples(3)))

    return {"gain": median_time(1) / median_time(2)}


def joblib_rest():
    parallel, delayed = joblib_parallel(2)
    with parallel:
        check(tasks(20_000))(parallel(delayed(add_one)(i) for i in range(tasks(20_000))))
        process = parallel(delayed(pid)() for _ in range(2))[0]
        time.sleep(0.1)
        return resident(process)


# mpire


def mpire(jobs):
    return importlib.import_module("mpire").WorkerPool(n_jobs=jobs, keep_alive=True)


def mpire_map():
    with mpire(2) as pool:
        return rate(200_000, lambda n: check(n)(pool.map(add_one, range(n))))


def mpire_imap():
    with mpire(2) as pool:
        return rate(200_000, lambda n: check(n)(pool.imap(add_one, range(n), iterable_len=n)))


def mpire_latency():
    with mpire(1) as pool:
        return latency(300, lambda: pool.apply(add_one, (1,)))


# Real work: the sides take turns, as the program that started this asks for them.


def count_words(text):
    return Counter(text.split())


def count_words_in(part):
    path, start, length = part
    with open(path, "rb") as file:
        file.seek(start)
        return count_words(file.read(length).decode())


def parse(document):
    return len(json.loads(document))


def digest(block):
    return hashlib.sha256(block).digest()


def compress(block):
    return zlib.compress(block, 6)


def real_work(name, folder, count):
    """The function of a row and its inputs, from the files that the other side wrote."""

    def parts(length):
        text = pathlib.Path(folder, "text").read_bytes()
        return [text[at : at + length] for at in (n * length % (len(text) - length) for n in range(count))]

    chunk = (1 << 20) // (100 if TEST else 1)
    if name.startswith(("spin", "uneven")):
        rounds, times = 100_000, []
        for _ in range(10):
            start = time.process_time()
            spin(rounds)
            times.append(time.process_time() - start)
        per_microsecond = rounds / min(times) / 1e6
        lengths = pathlib.Path(folder, "lengths").read_text().split()
        return spin, [int(float(length) * per_microsecond) for length in lengths[:count]]
    if name == "hash":
        return digest, parts(4 << 10)
    if name == "json":
        documents = pathlib.Path(folder, "documents").read_text().splitlines()
        return parse, [documents[n % len(documents)] for n in range(count)]
    if name == "words_sent":
        return count_words, [part.decode() for part in parts(chunk)]
    if name == "words_read":
        path = os.path.join(folder, "text")
        size = os.path.getsize(path)
        return count_words_in, [(path, n * chunk % (size - chunk), chunk) for n in range(count)]
    assert name == "compress"
    return compress, parts(64 << 10)


def real():
    name, folder, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
    function, inputs = real_work(name, folder, count)
    began = {"Python, no pool": []}
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(multiprocessing.Pool(2))
        began["multiprocessing"] = list({process.pid for process in multiprocessing.active_children()})
        sides = {
            "Python, no pool": lambda: [function(one) for one in inputs],
            "multiprocessing": lambda: pool.map(function, inputs),
        }
        try:
            parallel, delayed = joblib_parallel(2)
            stack.enter_context(parallel)
            began["joblib"] = list(set(parallel(delayed(pid)() for _ in range(20))))
            sides["joblib"] = lambda: parallel(delayed(function)(one) for one in inputs)
        except ModuleNotFoundError as error:
            began["missing"] = f"not here: {error}"
        print(json.dumps(began), flush=True)
        for line in sys.stdin:
            if line.strip() == "end":
                return
            results = []
            took = timed(lambda: results.extend(sides[line.strip()]()))
            assert len(results) == count
            print(json.dumps(took), flush=True)


def versions():
    """Which Python this is and which of the packages it has, in words."""
    words = [f"Python {sys.version.split()[0]}"]
    for package in ("joblib", "mpire"):
        try:
            from importlib.metadata import version

            words.append(f"{package} {version(package)}")
        except ImportError:
            words.append(f"no {package}")
    return ", ".join(words)


def main():
    name = sys.argv[1]
    if name == "versions":
        print(versions())
        return
    if name == "real":
        real()
        return
    try:
        answer = globals()[name]()
    except ModuleNotFoundError as error:
        answer = {"missing": f"{error} in Python {sys.version.split()[0]}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    # By import, so that workers find the functions in a module, whichever way they start.
    import peers

    peers.main()
