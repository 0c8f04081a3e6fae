# verify/built_in_names.hpp: the name maps of verify/names/ and its parameters/, as text in the program.
function(dsa_name_maps variable pattern)
  file(GLOB maps CONFIGURE_DEPENDS ${pattern})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${maps})
  set(rows "")
  foreach(file ${maps})
    get_filename_component(name ${file} NAME)
    string(REGEX REPLACE "[.]txt$" "" name "${name}")
    file(READ ${file} text)
    string(APPEND rows "    {\"${name}\", R\"names(${text})names\"},\n")
  endforeach()
  set(${variable} "${rows}" PARENT_SCOPE)
endfunction()
dsa_name_maps(DSA_NAME_MAPS verify/names/*.txt)
dsa_name_maps(DSA_PARAMETER_NAME_MAPS verify/names/parameters/*.txt)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/verify/built_in_names.hpp @ONLY CONTENT
[[// Made by cmake/names.cmake.
#pragma once

#include <string_view>
#include <utility>

namespace dsa::verify {

inline constexpr std::pair<std::string_view, std::string_view> built_in_names[] = {
@DSA_NAME_MAPS@};

inline constexpr std::pair<std::string_view, std::string_view> built_in_parameter_names[] = {
@DSA_PARAMETER_NAME_MAPS@};

}  // namespace dsa::verify
]])
target_include_directories(dsa_verify PRIVATE ${CMAKE_BINARY_DIR}/generated)
