# core/build_info_generated.hpp: what --version and receipts say of the build. Rewritten only when it changes.
set(DSA_BUILD_INFO ${CMAKE_BINARY_DIR}/generated/core/build_info_generated.hpp)
add_custom_target(dsa_build_info BYPRODUCTS ${DSA_BUILD_INFO}
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUT=${DSA_BUILD_INFO}
          -DVERSION=${PROJECT_VERSION} "-DCOMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
          "-DFLAGS=${CMAKE_BUILD_TYPE} ${CMAKE_CXX_FLAGS}" -P ${PROJECT_SOURCE_DIR}/cmake/build_info.cmake)
add_dependencies(dsa_core dsa_build_info)
set_source_files_properties(core/build_info.cpp PROPERTIES INCLUDE_DIRECTORIES ${CMAKE_BINARY_DIR}/generated)
