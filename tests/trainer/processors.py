"""Where the tolerances against the originals' floats come from.

Every comparison was measured with the kernels of nine kinds of processor, four of them with one thread and with two,
all on one AMD EPYC: torch and oneDNN with AVX-512, with AVX2 and without either; MKL's kernels for AMD, for Intel with
AVX-512, AVX2 and SSE4.2, and its compatible ones; OpenBLAS as on Zen, Haswell, Skylake, Nehalem and Prescott.  They are
chosen by ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_CBWR, MKL_ENABLE_INSTRUCTIONS, OPENBLAS_CORETYPE and
NPY_DISABLE_CPU_FEATURES; MKL takes its kernels for Intel where `mkl_serv_intel_cpu_true` is preloaded to return 1.

A difference has one of two causes, and beside each tolerance stands the largest difference seen:

- order of additions, which differs between the kinds: four times the largest;
- a rounding that only the original does or only we do, which is the same on all kinds but for 1 %: twice the largest.

`tests.trainer.test_optimizer_golden` states what wrong formulas give; none is within a tolerance.
"""

# Values of size 1 that few operations made: at most 1.4e-6, on all kinds.
FEW_OPERATIONS = 3e-6
