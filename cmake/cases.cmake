# Numbers against their limits, and the cases of kernels: posed, answered by the reference, judged. No kernel is
# compiled for them, so that the Python package has them as well (python.cmake).
add_library(dsa_check verify/measure/check.cpp verify/measure/compare.cpp verify/measure/selection.cpp
                      verify/report/text.cpp verify/verdict.cpp)
target_link_libraries(dsa_check PUBLIC dsa_core PRIVATE dsa_exact)
file(GLOB case_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/verify/kernels/cases/*.cpp)
add_library(dsa_cases EXCLUDE_FROM_ALL ${case_sources} verify/kernels/op.cpp verify/kernels/decision.cpp
                                       verify/kernels/given.cpp)
target_link_libraries(dsa_cases PUBLIC dsa_check dsa_reference_ops PRIVATE dsa_exact)
foreach(target dsa_check dsa_cases)
  target_compile_options(${target} PRIVATE ${DSA_READS})
  target_precompile_headers(${target} PRIVATE <algorithm> <cmath> <functional> <map> <string> <vector>)
endforeach()
# GCC 12 takes a vector of swiglu_backward.cpp, freed as it was allocated, for one that points elsewhere.
target_compile_options(dsa_cases PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-free-nonheap-object>)
