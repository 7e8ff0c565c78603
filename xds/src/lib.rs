//! Envoy v3 messages and the delta discovery protocol, both ends. Empty so far.
