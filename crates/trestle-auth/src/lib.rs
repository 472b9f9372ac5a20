//! Tokens, identities, permissions; says yes or no, and why.
