//! The fleet: what hosts share through etcd. Here is the client; it knows nothing of networks and ports, and is used by nothing yet.

pub mod etcd;
