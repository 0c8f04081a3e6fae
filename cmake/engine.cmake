# A loaded model (optimized/engine.hpp) and what works with any; and, above the backends, their table.
file(GLOB engine_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/*.cpp)
list(REMOVE_ITEM engine_sources ${PROJECT_SOURCE_DIR}/optimized/backends.cpp)
add_library(dsa_engine ${engine_sources})
target_link_libraries(dsa_engine PUBLIC dsa_core PRIVATE dsa_exact)
add_library(dsa_backends ${PROJECT_SOURCE_DIR}/optimized/backends.cpp)
target_link_libraries(dsa_backends PUBLIC dsa_engine PRIVATE dsa_cpu dsa_cuda_engine dsa_exact)
