# From nothing, headers are most of a compilation: these targets compile eight files at a time (dsa_core: 65 s of
# processor time, 101 s otherwise). Names in an unnamed namespace are then shared by up to eight files of a target; two that collide are a
# compile error. What computes stays by itself, and so do programs whose commands are alike (Options, run). After one
# change eight files are compiled again: -DDSA_TOGETHER=OFF is faster there (tests/mutants).
option(DSA_TOGETHER "Compile several files at a time" ON)
if(DSA_TOGETHER AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  foreach(target dsa_core dsa_cli dsa_text dsa_measure dsa_verify dsa-verify dsa_train_pipeline)
    if(TARGET ${target})
      set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    endif()
  endforeach()
endif()
