//! eBPF maps and programs (bpf(2)).
