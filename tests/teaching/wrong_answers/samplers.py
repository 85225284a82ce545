"""Chapter 04: wrong answers that students really give, and a fragment of the hint each must earn."""


def ddim_with_old_sigma(x, epsilon, abar, abar_next):
    x0 = (x - (1 - abar) ** 0.5 * epsilon) / abar**0.5
    return abar_next**0.5 * x0 + (1 - abar) ** 0.5 * epsilon


def ddim_without_division(x, epsilon, abar, abar_next):
    x0 = x - (1 - abar) ** 0.5 * epsilon
    return abar_next**0.5 * x0 + (1 - abar_next) ** 0.5 * epsilon


def variance_large(abar, abar_next):
    return 1 - abar / abar_next


def variance_as_sd(abar, abar_next):
    return ((1 - abar / abar_next) * (1 - abar_next) / (1 - abar)) ** 0.5


def grid_leading(T, N):
    return [i * (T // N) for i in range(N)][::-1]


def grid_from_one(T, N):
    return [round(T - i * T / N) for i in range(N)]


def budget_even(T, N):
    return [round(T - i * T / N) - 1 for i in range(N)]


def budget_forgets_the_start(T, N):
    return [round((T - 1) * (1 - (i + 0.5) / N) ** 2) for i in range(N)]


def cost_without_guidance(sampler, N, g):
    return 2 * N - 1 if sampler == "heun" else N


def cost_always_double(sampler, N, g):
    return 2 * (2 * N - 1 if sampler == "heun" else N)


def cost_heun_to_the_end(sampler, N, g):
    return (2 * N if sampler == "heun" else N) * (1 if g in (0, 1) else 2)


def cost_2s_as_heun(sampler, N, g):
    return (2 * N - 1 if sampler in ("heun", "dpm_solver_pp_2s") else N) * (1 if g in (0, 1) else 2)


WRONG = {
    "04-ddim": [
        (ddim_with_old_sigma, "sigma of the present level"),
        (ddim_without_division, "divide by the signal"),
    ],
    "04-variance": [(variance_large, "large variance"), (variance_as_sd, "standard deviation")],
    "04-grid": [(grid_leading, "never visited"), (grid_from_one, "count from zero")],
    "04-budget": [(budget_even, "no better"), (budget_forgets_the_start, "must start")],
    "04-cost": [
        (cost_without_guidance, "with the prompt and without"),
        (cost_always_double, "weight zero"),
        (cost_heun_to_the_end, "nobody asks there"),
        (cost_2s_as_heun, "falls on a timestep of the list"),
    ],
}
