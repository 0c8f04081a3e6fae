# The CUDA kernels (docs/cuda.md), twice: with the C++ compiler, where optimized/cuda/host/ runs them,
# and with nvcc where there is one. The two live in different namespaces and in one program.
file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/cuda/*.cu)
file(GLOB cuda_rungs CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/verify/ops/cuda/*.cpp)
add_subdirectory(optimized/cuda/host)
add_library(dsa_cuda INTERFACE)  # what verify/ needs to judge them

function(dsa_cuda_rungs place)
  add_library(dsa_cuda_rungs_${place} OBJECT ${cuda_rungs})
  target_link_libraries(dsa_cuda_rungs_${place} PRIVATE dsa_core dsa_exact)
  target_sources(dsa_cuda INTERFACE $<TARGET_OBJECTS:dsa_cuda_rungs_${place}>)
  target_link_libraries(dsa_cuda INTERFACE dsa_cuda_${place})
endfunction()
dsa_cuda_rungs(host)
target_compile_definitions(dsa_cuda_rungs_host PRIVATE DSA_CUDA_ON_HOST)

find_program(DSA_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(DSA_NVCC)
  execute_process(COMMAND ${DSA_NVCC} --version OUTPUT_VARIABLE nvcc_says)
  string(REGEX MATCH "release ([0-9.]+)" _ "${nvcc_says}")
  set(nvcc_version ${CMAKE_MATCH_1})
endif()
if(nvcc_version VERSION_GREATER_EQUAL 12.8)  # sm_100, and C++20
  option(DSA_CUDA "Build the kernels for a CUDA device" ON)
endif()
if(NOT DSA_CUDA)
  message(STATUS "CUDA: no nvcc of 12.8 or later, or DSA_CUDA=OFF: the kernels run on the host only")
  return()
endif()
set(CMAKE_CUDA_COMPILER ${DSA_NVCC})
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100-real)
endif()
enable_language(CUDA)
add_library(dsa_cuda_device STATIC ${cuda_sources})
target_include_directories(dsa_cuda_device PRIVATE ${PROJECT_SOURCE_DIR})
# CMake 3.25 does not know nvcc's word for C++20.
target_compile_options(dsa_cuda_device PRIVATE -std=c++20 --threads 2 -Xptxas -v)
set_target_properties(dsa_cuda_device PROPERTIES CUDA_COMPILER_LAUNCHER
  "${PROJECT_SOURCE_DIR}/cmake/ptxas_report.sh;${PROJECT_BINARY_DIR}/ptxas;${CMAKE_CXX_COMPILER_LAUNCHER}")
dsa_cuda_rungs(device)
target_include_directories(dsa_cuda_rungs_device SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_definitions(dsa_cuda INTERFACE DSA_CUDA)
