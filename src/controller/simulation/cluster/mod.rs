//! The API server in this process, behind the HTTP boundary of kube.
