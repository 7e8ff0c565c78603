"""Sends the comparator's probes through the rules it was given, and prints what became of each.

    probes.py FOLDER

FOLDER holds the comparator (oracle.py) and its cases. For each case one line of JSON: the case, and its
probes, each with the interface at which the pod meets it and the outcome. Needs what the comparator needs.
"""
import json
import os
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import oracle  # noqa: E402

TIMEOUT = 0.8


def interface(pod, probe, known):
    """Where the probe enters the pod, or by which interface the kernel lets it out."""
    if probe["from"] == "world":
        return "eth0"
    if probe["from"] == "vm":
        return oracle.ROLE_IFS[int(probe["dev"][1:])][0]
    question = ["ip", "route", "get", probe["dst"]]
    if probe.get("mark"):
        question += ["mark", str(probe["mark"])]
    key = tuple(question)
    if key not in known:
        known[key] = re.search(r" dev (\S+)", pod.ag["pod"].run(question)[1]).group(1)
    return known[key]


def outcomes(folder, case):
    plan, known = oracle.plan(case), {}
    pod = oracle.Pod(case, plan)
    try:
        pod.load_istio(folder, "iptables-nft")
        pod.start(plan["probes"], TIMEOUT)
        found = pod.finish()
        lost = [p for p in plan["probes"] if found[p["id"]]["result"] == "timeout"]
        if lost:
            # What a busy machine lost arrives the second time.
            pod.start(oracle.renumber(lost, 45000), 2 * TIMEOUT)
            found.update(pod.finish())
        return [dict(p, interface=interface(pod, p, known), outcome=found[p["id"]]) for p in plan["probes"]]
    finally:
        pod.close()


def main():
    folder = sys.argv[1]
    with open(os.path.join(folder, "cases.json")) as f:
        index = json.load(f)["cases"]
    for entry in index:
        with open(os.path.join(folder, entry["file"])) as f:
            case = json.load(f)
        told = {key: case[key] for key in ("name", "args", "env", "resolv_conf")}
        print(json.dumps(dict(told, probes=outcomes(folder, case))), flush=True)


main()
