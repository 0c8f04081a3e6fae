#include "optimized/backends.hpp"

#include "core/words.hpp"
#include "optimized/cpu/model/engine.hpp"
#include "optimized/cuda/model/engine.hpp"

namespace dsa {

const std::vector<Backend>& backends() {
  static const std::vector<Backend> all = {
#ifdef DSA_BACKENDS
      {"cpu", cpu::plan, cpu::open},
      {"cuda", cuda::device::plan, cuda::device::open},
      {"cuda-host", cuda::host::plan, cuda::host::open},
#endif
  };
  return all;
}

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const Backend& backend : backends()) names.push_back(backend.name);
  return names;
}

const Backend& backend_named(const std::string& name) {
  for (const Backend& backend : backends())
    if (backend.name == name) return backend;
  throw Error("this build has no backend \"" + name + "\"; choose " +
              alternatives(backend_names()));
}

void check_options(const EngineOptions& o) {
  const bool cpu = o.backend == "cpu";
  require(o.tier.empty() || cpu,
          "--isa chooses instructions of the backend cpu; leave it out for " + o.backend);
  require(o.mla.empty() || cpu,
          "--mla chooses a form of the backend cpu; leave it out for " + o.backend);
  require(o.threads == 0 || cpu, "--threads is of the backend cpu; leave it out for " + o.backend);
}

}  // namespace dsa
