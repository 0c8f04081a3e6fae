# verify/build_info.hpp: what the receipt says of the build. Rewritten only when it changes.
set(DSA_BUILD_INFO ${CMAKE_BINARY_DIR}/generated/verify/build_info.hpp)
add_custom_target(dsa_build_info BYPRODUCTS ${DSA_BUILD_INFO}
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUT=${DSA_BUILD_INFO}
          -DVERSION=${PROJECT_VERSION} "-DCOMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
          "-DFLAGS=${CMAKE_BUILD_TYPE} ${CMAKE_CXX_FLAGS}" -P ${PROJECT_SOURCE_DIR}/cmake/build_info.cmake)
add_dependencies(dsa_verify dsa_build_info)
target_include_directories(dsa_verify PRIVATE ${CMAKE_BINARY_DIR}/generated)
