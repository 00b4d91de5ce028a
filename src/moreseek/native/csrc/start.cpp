// What the kernels take from the process that they run in, and what this build can do.
#include "gemm.h"
#include "step.h"

Sgemm blas_sgemm = nullptr;
bool own_products = false;
RunTeam run_team = nullptr;

extern "C" void native_start(void *sgemm_address, void *gomp_parallel_address) {
    blas_sgemm = (Sgemm)sgemm_address;
    run_team = (RunTeam)gomp_parallel_address;
}

extern "C" void native_choose_products(int own) { own_products = own; }

extern "C" int native_lanes() { return LANES; }

extern "C" int native_tiles() { return has_tiles(); }
