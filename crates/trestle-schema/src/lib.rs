//! The company's message types, loaded at run time: catalogue, versions, routes, JSON transcoding, validation.
