//! SPIFFE identities, certificates and TLS configurations. Empty so far.
