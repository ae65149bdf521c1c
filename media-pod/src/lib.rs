//! media-pod
