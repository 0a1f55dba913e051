"""Stands in for a trial's training: it takes no time, and files say how it ends.

Its validation accuracy is the better the closer optimizer.lr is to 0.1; it diverges above 1. In the
directory that $FAKE_TRAINING names, a file "fail" has it fail, "wait" has it wait, and the first to
see "kill" kills itself.
"""

import json
import math
import os
import pathlib
import signal
import sys
import time


def main():
    flags = dict(flag.partition("=")[::2] for flag in sys.argv[1:])
    workdir, control = pathlib.Path(flags["--workdir"]), pathlib.Path(os.environ["FAKE_TRAINING"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lr, epochs = float(flags["--config.optimizer.lr"]), int(flags["--config.num_epochs"])
    if (control / "fail").exists():
        sys.exit("error: no space left")
    if lr > 1:
        print("error: training diverged in epoch 1", flush=True)
        sys.exit(3)
    accuracy = 80 - 20 * abs(math.log10(lr) + 1)
    metrics = workdir / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    print(f"starting after {done} epochs", flush=True)
    for epoch in range(done + 1, epochs + 1):
        with open(metrics, "a") as file:
            file.write(json.dumps({"epoch": epoch, "val_acc": accuracy - epochs + epoch}) + "\n")
        while (control / "wait").exists():
            time.sleep(0.02)
        if (control / "kill").exists():
            (control / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    (workdir / "summary.json").write_text(json.dumps({"best_val_acc": accuracy, "test_acc": 99}))


if __name__ == "__main__":
    main()
