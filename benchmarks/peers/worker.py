"""The process of a peer: tasks come on standard input, answers go out.

Started by `process` under the peers' interpreter. A line of JSON is a
task, with the name of an .npz file of its arrays and of one for the answer's.
"""

import json
import os
import sys
import time

import numpy as np


def serve(name, questions, answers):
    """Answers until the questions end.

    Args:
      name: one of `peer_attacks.PEERS` or of `peer_training.PEERS`.
      questions: lines of JSON.
      answers: file for lines of JSON; the first has the versions.
    """
    from benchmarks.peers import attacks as peer_attacks
    from benchmarks.peers import training as peer_training

    def say(answer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        peer = (peer_attacks.PEERS | peer_training.PEERS)[name]()
    except Exception as error:  # whatever an import raises
        say({"error": _sentence(error)})
        return
    say({"versions": peer.versions})
    for line in questions:
        question = json.loads(line)
        try:
            say(_answered(peer, question))
        except Exception as error:  # a peer's own, reported as such
            say({"error": _sentence(error)})


def _answered(peer, question):
    with np.load(question["arrays"]) as file:
        arrays = dict(file)
    task = question["task"]
    if task == "load":
        peer.load(arrays)
        answer, results = {}, {}
    elif task == "logits":
        answer, results = {}, {"logits": peer.logits(_pixels(arrays))}
    elif task == "prepare":
        peer.prepare(**question["arguments"])
        answer, results = {}, {}
    elif task == "step":
        answer, results = _stepped(peer, arrays), {}
    else:
        answer, results = _attacked(peer, question, arrays)
    np.savez(question["answer"], **results)
    return answer


def _stepped(peer, arrays):
    images, labels = _pixels(arrays), arrays["labels"]
    begin = time.perf_counter(), time.process_time()
    loss = peer.step(images, labels)
    return {
        "seconds": time.perf_counter() - begin[0],
        "processor_seconds": time.process_time() - begin[1],
        "loss": loss,
    }


def _attacked(peer, question, arrays):
    images, labels = _pixels(arrays), arrays["labels"]
    size = question["batch_size"]
    attack = peer.attack(question["name"], **question["arguments"])
    parts = []
    begin = time.perf_counter(), time.process_time()
    for first in range(0, len(images), size):
        batch = slice(first, first + size)
        parts.append(attack(images[batch], labels[batch]))
        peer.logits(parts[-1])  # an evaluation judges what came out
    answer = {
        "seconds": time.perf_counter() - begin[0],
        "processor_seconds": time.process_time() - begin[1],
    }
    return answer, {"adversarial": np.concatenate(parts)}


def _pixels(arrays):
    return arrays["images"].astype(np.float32) / np.float32(255)


def _sentence(error):
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


if __name__ == "__main__":
    # Peers print; answers have the real standard output for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin, answers)
