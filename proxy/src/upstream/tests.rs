//! Clusters against real sockets on the loopback interface.
