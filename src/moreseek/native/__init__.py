"""A few fused C++ kernels for the CPU, built once where there is a compiler; everything works without them."""
