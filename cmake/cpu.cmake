# The CPU backend. optimized/cpu/{ops,model}/*.cpp once; optimized/cpu/kernels/*.cpp once per tier, in a
# namespace of the tier's name (optimized/cpu/ops/tier.hpp). -fno-math-errno and no trapping are all
# that is relaxed: NaN and infinities keep their meaning.
file(GLOB cpu_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/cpu/ops/*.cpp
     ${PROJECT_SOURCE_DIR}/optimized/cpu/model/*.cpp)
file(GLOB cpu_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/cpu/kernels/*.cpp)
add_library(dsa_cpu ${cpu_sources})
target_link_libraries(dsa_cpu PUBLIC dsa_engine)
target_compile_options(dsa_cpu PRIVATE ${DSA_COMPUTES} -fno-math-errno -fno-trapping-math)

set(kernel_optimisation -O3 ${DSA_COMPUTES})

function(dsa_cpu_tier name)
  add_library(dsa_cpu_${name} OBJECT ${cpu_kernels})
  target_link_libraries(dsa_cpu_${name} PRIVATE dsa_warnings)
  target_compile_definitions(dsa_cpu_${name} PRIVATE DSA_TIER=${name})
  target_compile_options(dsa_cpu_${name} PRIVATE ${kernel_optimisation} -fno-math-errno -fno-trapping-math -Wno-psabi ${ARGN})
  target_sources(dsa_cpu PRIVATE $<TARGET_OBJECTS:dsa_cpu_${name}>)
  set_property(GLOBAL APPEND PROPERTY DSA_KERNEL_OBJECTS $<TARGET_OBJECTS:dsa_cpu_${name}>)
endfunction()
dsa_cpu_tier(portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2 -mavx2 -mfma -mf16c)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  dsa_cpu_tier(avx2 ${avx2})
  dsa_cpu_tier(avx512 ${avx512})
  dsa_cpu_tier(avx512_bf16 ${avx512} -mavx512bf16)
  dsa_cpu_tier(amx ${avx512} -mavx512bf16 -mamx-tile -mamx-bf16)
  target_compile_definitions(dsa_cpu PRIVATE DSA_X86)
endif()

# AMX's kernels with tiles in memory, for the tests of machines without AMX.
add_library(dsa_cpu_tiles_in_software OBJECT EXCLUDE_FROM_ALL
  ${PROJECT_SOURCE_DIR}/optimized/cpu/kernels/linear.cpp)
target_link_libraries(dsa_cpu_tiles_in_software PRIVATE dsa_warnings)
target_compile_definitions(dsa_cpu_tiles_in_software PRIVATE DSA_TIER=tiles_in_software DSA_TILES_IN_SOFTWARE)
target_compile_options(dsa_cpu_tiles_in_software PRIVATE ${kernel_optimisation} -Wno-psabi)
