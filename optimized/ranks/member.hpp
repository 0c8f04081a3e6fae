// optimized/ranks/member.hpp — the processes of a job: where they run, and on which cores.
#pragma once

#include <string>
#include <vector>

#include "core/json.hpp"

namespace dsa::ranks {

struct Member {
  int rank = 0;
  std::string address;  // as the others reach it
  int port = 0;
  int pid = 0;
  std::string host;
  std::string machine;     // differs where the kernel does: containers of one machine share cores
  std::vector<int> cores;  // that the process may run on
};

Json to_json(const Member&);
Member member_of(const Json&);

/// This process; without address and port.
Member this_process(int rank);

/// Threads of one member: its cores, each shared with the members that may run on it, too. So ranks
/// that their launcher has bound to cores keep theirs, and others divide the machine.
int threads_of(const Member&, const std::vector<Member>& all);

/// "rank 2 of 4 (process 1234 on node7)"
std::string name_of(const Member&, std::size_t of);

/// A sentence about the rank that works longest, where it takes more than half as long again as the
/// median of the others; empty: none does. `seconds`: of one micro-batch, a rank; 0: it had none.
std::string slow_rank(const std::vector<double>& seconds, const std::vector<Member>&);

}  // namespace dsa::ranks
