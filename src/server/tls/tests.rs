//! TLS with real certificates.
