//! The gRPC and HTTP that services and operators use.
