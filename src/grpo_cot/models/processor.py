"""Number formats that this machine's processor computes in."""

import platform

import torch


def emulates_bfloat16() -> bool:
    """Whether the processor has no instructions for matrices in bfloat16, which makes training in it many times slower
    than in float32 (thirty times on an AMD EPYC 7003, 135 million parameters).

    oneDNN asks for AVX-512 at least. Other architectures than x86-64 are not known here, and count as able.
    """
    return platform.machine() in ("x86_64", "AMD64") and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
