# verify/built_in_names.hpp: the name maps of verify/names/, as text in the program.
file(GLOB name_maps CONFIGURE_DEPENDS verify/names/*.txt)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${name_maps})
set(DSA_NAME_MAPS "")
foreach(file ${name_maps})
  get_filename_component(name ${file} NAME)
  string(REGEX REPLACE "[.]txt$" "" name "${name}")
  file(READ ${file} text)
  string(APPEND DSA_NAME_MAPS "    {\"${name}\", R\"names(${text})names\"},\n")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/verify/built_in_names.hpp @ONLY CONTENT
[[// Made by cmake/names.cmake.
#pragma once

#include <string_view>
#include <utility>

namespace dsa::verify {

inline constexpr std::pair<std::string_view, std::string_view> built_in_names[] = {
@DSA_NAME_MAPS@};

}  // namespace dsa::verify
]])
target_include_directories(dsa_verify PRIVATE ${CMAKE_BINARY_DIR}/generated)
