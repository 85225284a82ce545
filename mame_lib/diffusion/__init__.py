"""Diffusion in seven short modules: the only part of the library that needs nothing but PyTorch.

Read them in this order:

1. `schedule`: how much noise at each timestep (betas, their running products, the signal-to-noise ratio);
2. `process`: the forward process and the quantities a network may be trained to predict;
3. `start`: what a sampler starts from: noise, one reproducible stream per image, and the signal leak;
4. `path`: at which noise levels the network is called;
5. `samplers`: DDPM, DDIM, Euler and Heun as generators that yield every state;
6. `solvers`: DPM-Solver++, the paper's choice;
7. `guidance`: how a prompt steers the network at sampling time.

Conventions, kept everywhere:

- Timesteps are 0-based: t runs from 0 (almost clean) to T-1 (almost pure noise), as in every code base.
  The MAM-E paper counts from 1, so its beta_1 is `schedule.betas[0]`.
- T is the number of training timesteps (1000), N the number of sampling steps (24 in the paper).
- "MAM-E Eq. n" is an equation of Montoya-del-Angel et al., Sensors 2024, 24, 2076, in its corrected form.
- Tables are computed in float64 and stored in float32; all arithmetic on images is float32.
- Wrong arguments raise `ValueError` with one sentence.
"""

from mame_lib.diffusion import guidance, path, process, samplers, schedule, solvers, start

__all__ = ["guidance", "path", "process", "samplers", "schedule", "solvers", "start"]
