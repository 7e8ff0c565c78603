//! Server of `istio.v1.auth.IstioCertificateService`.
//!
//! Only the gRPC framing: who may have which certificate is decided by the [`CertificateAuthority`]
//! that is given.

use super::{CERTIFICATE_SERVICE, CREATE_CERTIFICATE};
use super::{IstioCertificateRequest, IstioCertificateResponse};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Longest request that is read; a CSR has about 1 KiB.
const MAX_REQUEST: usize = 64 << 10;

/// Decides about certificate requests.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Answers one request; metadata (bearer token) and peer are in the request.
    fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> impl Future<Output = Result<Response<IstioCertificateResponse>, Status>> + Send;
}

/// The service, to be added to a tonic router.
#[derive(Debug)]
pub struct CertificateServer<A>(Arc<A>);

impl<A> CertificateServer<A> {
    /// Serves this authority.
    pub fn new(authority: Arc<A>) -> Self {
        Self(authority)
    }
}

impl<A> Clone for CertificateServer<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> NamedService for CertificateServer<A> {
    const NAME: &'static str = CERTIFICATE_SERVICE;
}

struct CreateCertificate<A>(Arc<A>);

impl<A: CertificateAuthority> UnaryService<IstioCertificateRequest> for CreateCertificate<A> {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<Response<IstioCertificateResponse>, Status>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let authority = Arc::clone(&self.0);
        Box::pin(async move { authority.create_certificate(request).await })
    }
}

impl<A, B> Service<http::Request<B>> for CertificateServer<A>
where
    A: CertificateAuthority,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != CREATE_CERTIFICATE {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let method = CreateCertificate(Arc::clone(&self.0));
        Box::pin(async move {
            let codec = ProstCodec::default();
            let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(MAX_REQUEST), None);
            Ok(grpc.unary(method, request).await)
        })
    }
}
