"""How much memory a training run will need, said before it starts, and what to change when that is too much.

    print(plan(config, device_kind="cuda", gib=16))

Nothing big is allocated: the networks are run once on tensors without data, see `trace`.
"""

from mame_lib.planner.machine import check_room, here, room
from mame_lib.planner.plan import Advice, Phase, Plan, plan

__all__ = ["Advice", "Phase", "Plan", "check_room", "here", "plan", "room"]
