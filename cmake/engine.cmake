# What every backend obeys (optimized/shared/), a loaded model (optimized/engine/), above the backends
# their table, and the flags of every program that runs one of them.
file(GLOB engine_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/shared/*.cpp
     ${PROJECT_SOURCE_DIR}/optimized/engine/*.cpp)
list(REMOVE_ITEM engine_sources ${PROJECT_SOURCE_DIR}/optimized/engine/arguments.cpp)
add_library(dsa_engine ${engine_sources})
target_link_libraries(dsa_engine PUBLIC dsa_core PRIVATE dsa_exact)
add_library(dsa_backends ${PROJECT_SOURCE_DIR}/optimized/backends.cpp)
target_link_libraries(dsa_backends PUBLIC dsa_engine PRIVATE dsa_exact)
add_library(dsa_engine_arguments ${PROJECT_SOURCE_DIR}/optimized/engine/arguments.cpp)
target_link_libraries(dsa_engine_arguments PUBLIC dsa_backends dsa_cli PRIVATE dsa_exact)
if(NOT DSA_BACKENDS)
  return()
endif()
target_compile_definitions(dsa_backends PRIVATE DSA_BACKENDS)
target_link_libraries(dsa_backends PRIVATE dsa_cpu dsa_cuda_engine)
# Text as a loaded model makes it: the one file of text/ that needs an engine.
add_library(dsa_text_generation ${PROJECT_SOURCE_DIR}/text/generation.cpp)
target_link_libraries(dsa_text_generation PUBLIC dsa_text dsa_engine PRIVATE dsa_exact)
