# What `dsa-bench cuda` runs, twice as the kernels are: on the host, and by nvcc where there are nvcc
# and cuBLAS.
file(GLOB bench_cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/experiments/bench/cuda/*.cu)
add_subdirectory(experiments/bench/cuda/host)
add_library(dsa_bench_problems STATIC experiments/bench/cuda/problems.cpp)
target_link_libraries(dsa_bench_problems PUBLIC dsa_core PRIVATE dsa_exact)
add_library(dsa_bench_cuda INTERFACE)
target_sources(dsa_bench_cuda INTERFACE $<TARGET_OBJECTS:dsa_bench_cuda_host>)
target_link_libraries(dsa_bench_cuda INTERFACE dsa_bench_problems dsa_cuda_host)
if(TARGET dsa_cuda_device AND TARGET CUDA::cublas)
  add_library(dsa_bench_cuda_device STATIC ${bench_cuda_sources})
  target_include_directories(dsa_bench_cuda_device PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(dsa_bench_cuda_device PRIVATE -std=c++20)
  target_link_libraries(dsa_bench_cuda_device PUBLIC dsa_cuda_device CUDA::cublas
                                              PRIVATE $<LINK_ONLY:dsa_bench_problems>)
  target_link_libraries(dsa_bench_cuda INTERFACE dsa_bench_cuda_device)
  target_compile_definitions(dsa_bench_cuda INTERFACE DSA_BENCH_CUDA)
endif()
