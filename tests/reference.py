"""Slow, obvious loops: what the fast code must equal. Written from the formulas, nothing shared with the package."""

import math

import numpy as np


def cosine_distance(x: np.ndarray, y: np.ndarray) -> float:
    """1 − cos, 1 when either vector is zero."""
    nx, ny = math.sqrt(sum(float(v) ** 2 for v in x)), math.sqrt(sum(float(v) ** 2 for v in y))
    if nx == 0.0 or ny == 0.0:
        return 1.0
    return 1.0 - sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / (nx * ny)


def gw_energy(edges_a: np.ndarray, edges_b: np.ndarray, plan: np.ndarray) -> float:
    """Σ (A[i,k] − L[j,l])²·γ[i,j]·γ[k,l], four loops' worth of it."""
    total = 0.0
    for i in range(plan.shape[0]):
        for j in range(plan.shape[1]):
            for k in range(plan.shape[0]):
                for m in range(plan.shape[1]):
                    total += (edges_a[i, k] - edges_b[j, m]) ** 2 * plan[i, j] * plan[k, m]
    return total


def fgw_value(cost: np.ndarray, edges_a: np.ndarray, edges_b: np.ndarray, plan: np.ndarray, alpha: float) -> float:
    """(1 − α)⟨cost, γ⟩ + α·GW(γ)."""
    linear = sum(cost[i, j] * plan[i, j] for i in range(plan.shape[0]) for j in range(plan.shape[1]))
    return (1.0 - alpha) * linear + alpha * gw_energy(edges_a, edges_b, plan)


def sinkhorn(cost: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, iterations: int = 5000) -> np.ndarray:
    """Plain Sinkhorn on exp(−cost/ε)·abᵀ, for friendly ε only."""
    kernel = np.exp(-cost / epsilon) * a[:, None] * b[None, :]
    u, v = np.ones_like(a), np.ones_like(b)
    for _ in range(iterations):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    return u[:, None] * kernel * v[None, :]


def proximal_fgw(
    cost: np.ndarray,
    edges_a: np.ndarray,
    edges_b: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    alpha: float,
    epsilon: float,
    outer: int,
    inner: int,
) -> np.ndarray:
    """Proximal point with Sinkhorn steps, the GW gradient by its definition."""
    plan = np.outer(a, b)
    discrepancy = (edges_a[:, None, :, None] - edges_b[None, :, None, :]) ** 2
    for _ in range(outer):
        gradient = (1.0 - alpha) * cost + 2.0 * alpha * np.einsum("ijkl,kl->ij", discrepancy, plan)
        kernel = plan * np.exp(-(gradient - gradient.min()) / epsilon)
        u, v = np.ones_like(a), np.ones_like(b)
        for _ in range(inner):
            v = b / (kernel.T @ u)
            u = a / (kernel @ v)
        plan = u[:, None] * kernel * v[None, :]
    return plan
