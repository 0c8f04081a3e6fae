# verify/kernels/: the suite behind `dsa-verify ops`, with every kernel of every backend.
file(GLOB_RECURSE kernel_suite_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/verify/kernels/*.cpp)
list(FILTER kernel_suite_sources EXCLUDE REGEX "verify/kernels/(backends/cuda/|cases/|(op|decision|given)[.]cpp)")
add_library(dsa_kernels ${kernel_suite_sources})
target_link_libraries(dsa_kernels PUBLIC dsa_cases dsa_verify dsa_cpu PRIVATE dsa_cuda dsa_exact)
target_compile_options(dsa_kernels PRIVATE ${DSA_READS})
target_precompile_headers(dsa_kernels PRIVATE <algorithm> <filesystem> <functional> <map> <string> <vector>)
target_link_libraries(dsa-verify PRIVATE dsa_kernels)
