#!/usr/bin/env python3
"""Turns dumps of SGLang's expert distribution recorder into JSON that expertmesh reads.

    examples/traces/sglang_to_json.py expert_distribution_recorder_*.pt > trace.json

Mode per_token gives a trace, mode stat a load matrix. Give the files of all ranks that hold
tokens of their own (data parallel ones) at once. Needs torch, and trusts its input: a dump is a
pickle.
"""
import json
import sys

import torch

dumps = [torch.load(path, map_location="cpu", weights_only=False) for path in sys.argv[1:]]
if not dumps:
    sys.exit(__doc__)
if "logical_count" in dumps[0]:
    counts = torch.cat([dump["logical_count"] for dump in dumps])
    json.dump({"format": "sglang-stat", "logical_count": counts.tolist()}, sys.stdout)
    sys.exit()
records, experts = [], 0
for dump in dumps:
    # Dumps name physical experts, of which several may be replicas of a logical one.
    to_logical = dump["last_physical_to_logical_map"].long()
    experts = max(experts, int(to_logical.max()) + 1)
    for record in dump["records"]:
        ids = record["topk_ids_of_layer"].long()
        logical = torch.stack([row[layer.clamp(min=0)] for row, layer in zip(to_logical, ids)])
        records.append({
            "forward_pass_id": record["forward_pass_id"],
            "rank": record["rank"],
            "input_ids": list(map(int, record["input_ids"])),
            "topk_ids_of_layer": torch.where(ids < 0, ids, logical).tolist(),
        })
json.dump({"format": "sglang-per-token", "experts": experts, "records": records}, sys.stdout)
