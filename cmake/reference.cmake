# The definition: exact flags, except that Eigen's double product is built once per instruction set.
# The ops are a library of their own: cases of kernels and the Python package need no model.
file(GLOB reference_ops CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/reference/*.cpp
     ${PROJECT_SOURCE_DIR}/reference/ops/*.cpp)
list(REMOVE_ITEM reference_ops ${PROJECT_SOURCE_DIR}/reference/ops/gemm.cpp)
add_library(dsa_reference_ops ${reference_ops})
target_link_libraries(dsa_reference_ops PUBLIC dsa_core PRIVATE dsa_exact)
file(GLOB reference_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/reference/model/*.cpp
     ${PROJECT_SOURCE_DIR}/reference/precision/*.cpp)
add_library(dsa_reference ${reference_sources})
target_link_libraries(dsa_reference PUBLIC dsa_reference_ops PRIVATE dsa_exact)
foreach(target dsa_reference_ops dsa_reference)
  target_compile_options(${target} PRIVATE ${DSA_COMPUTES})
endforeach()

function(dsa_gemm name)
  add_library(dsa_gemm_${name} OBJECT ${PROJECT_SOURCE_DIR}/reference/ops/gemm.cpp)
  target_link_libraries(dsa_gemm_${name} PRIVATE Eigen3::Eigen)
  target_include_directories(dsa_gemm_${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(dsa_gemm_${name} PRIVATE DSA_GEMM=gemm_${name} Eigen=Eigen_${name} NDEBUG)
  target_compile_options(dsa_gemm_${name} PRIVATE -O3 ${DSA_COMPUTES} ${ARGN})
  target_sources(dsa_reference_ops PRIVATE $<TARGET_OBJECTS:dsa_gemm_${name}>)
endfunction()
dsa_gemm(portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  dsa_gemm(avx2 -mavx2 -mfma)
  dsa_gemm(avx512 -mavx512f -mavx512dq -mavx512vl -mfma)
  target_compile_definitions(dsa_reference_ops PRIVATE DSA_X86)
endif()
