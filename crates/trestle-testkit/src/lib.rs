//! Real servers, test clients, faults. For tests only.
