//! TLS of connections, with the meaning that `sslmode` has in PostgreSQL's own programs:
//!
//! | `sslmode` | encrypted | certificate |
//! |---|---|---|
//! | `disable` | no | |
//! | `prefer` (default) | if the server offers it | not checked |
//! | `require` | always | not checked; with a root certificate as `verify-ca` |
//! | `verify-ca` | always | signed by the root certificate, or by one of the system's |
//! | `verify-full` | always | also valid for the host of the address |

#[cfg(feature = "tls")]
pub(crate) use encrypted::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use plain::Tls;

/// What to check of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Nothing, unless a root certificate is set.
    Unset,
    /// That a trusted authority signed it.
    Authority,
    /// Also that it is valid for the host.
    Full,
}

#[cfg(not(feature = "tls"))]
mod plain {
    use tokio_postgres::{NoTls, config::SslMode};

    use super::Verify;

    /// Connections without TLS.
    #[derive(Clone)]
    pub(crate) struct Tls;

    impl Tls {
        pub(crate) fn new(mode: SslMode, verify: Verify, root: Option<&[u8]>) -> Result<Self, String> {
            if mode == SslMode::Require || verify != Verify::Unset || root.is_some() {
                return Err("TLS is not built in: build with the feature `tls`".to_owned());
            }
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "the connector with TLS reads its settings")]
        pub(crate) const fn connector(&self) -> NoTls {
            NoTls
        }
    }
}

#[cfg(feature = "tls")]
mod encrypted {
    use std::{
        io,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use futures_util::future::BoxFuture;
    use rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    };
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio_postgres::{
        config::SslMode,
        tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
    };
    use tokio_rustls::TlsConnector;

    use super::Verify;

    /// Makes encrypted connections.
    #[derive(Clone)]
    pub(crate) struct Tls(Arc<ClientConfig>);

    impl Tls {
        pub(crate) fn new(mode: SslMode, verify: Verify, root: Option<&[u8]>) -> Result<Self, String> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verify = match verify {
                Verify::Unset if root.is_some() => Verify::Authority,
                other => other,
            };
            // Without TLS no certificate is checked, so the system's are not read.
            let verifier: Arc<dyn ServerCertVerifier> = match verify {
                Verify::Unset => Arc::new(Unverified(Arc::clone(&provider))),
                _ if mode == SslMode::Disable => Arc::new(Unverified(Arc::clone(&provider))),
                Verify::Authority => Arc::new(AuthorityOnly(authority(root, &provider)?)),
                Verify::Full => authority(root, &provider)?,
            };
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            Ok(Self(Arc::new(config)))
        }

        pub(crate) fn connector(&self) -> Self {
            self.clone()
        }
    }

    /// Checks certificates against the root certificate (PEM), or against the system's.
    fn authority(root: Option<&[u8]>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
        let mut roots = RootCertStore::empty();
        match root {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| format!("invalid root certificate: {error:?}"))?;
                    roots.add(certificate).map_err(|error| format!("invalid root certificate: {error}"))?;
                }
                if roots.is_empty() {
                    return Err("invalid root certificate: expected a CERTIFICATE in PEM".to_owned());
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| format!("the system has no root certificates ({error}); set sslrootcert"))
    }

    /// Accepts every certificate. The server still has to prove that it has the certificate's key.
    #[derive(Debug)]
    struct Unverified(Arc<CryptoProvider>);

    impl ServerCertVerifier for Unverified {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }

    /// Accepts a certificate that is valid for another host.
    #[derive(Debug)]
    struct AuthorityOnly(Arc<WebPkiServerVerifier>);

    impl ServerCertVerifier for AuthorityOnly {
        fn verify_server_cert(
            &self,
            cert: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            // The name is checked last.
            match self.0.verify_server_cert(cert, intermediates, name, ocsp, now) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                other => other,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, cert, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, cert, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }

    type Inner<S> = tokio_rustls::client::TlsStream<S>;

    /// A handshake with one host.
    pub(crate) struct Handshake {
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    }

    /// An encrypted connection.
    pub(crate) struct Encrypted<S>(Inner<S>);

    impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
        type Stream = Encrypted<S>;
        type TlsConnect = Handshake;
        type Error = io::Error;

        fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
            // The host is empty for a Unix socket, which is never encrypted.
            let host = if host.is_empty() { "localhost" } else { host };
            let host = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            Ok(Handshake { config: Arc::clone(&self.0), host })
        }
    }

    impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
        type Stream = Encrypted<S>;
        type Error = io::Error;
        type Future = BoxFuture<'static, io::Result<Encrypted<S>>>;

        fn connect(self, stream: S) -> Self::Future {
            Box::pin(async move { TlsConnector::from(self.config).connect(self.host, stream).await.map(Encrypted) })
        }
    }

    impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
        fn channel_binding(&self) -> ChannelBinding {
            ChannelBinding::none()
        }
    }

    impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}
