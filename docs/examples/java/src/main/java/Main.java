import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.vault.config.EnvironmentVaultConfiguration;
import org.springframework.vault.core.VaultOperations;
import org.springframework.vault.core.lease.SecretLeaseContainer;
import org.springframework.vault.core.lease.event.SecretLeaseCreatedEvent;

/**
 * Calls an API at intervals, with an access token that Spring Vault keeps fresh:
 *
 * <pre>java -cp 'target/classes:target/dependency/*' Main bcgov-jwt/creds/myapi https://myapi.example.org/</pre>
 *
 * VAULT_ADDR, VAULT_TOKEN and the other variables of EnvironmentVaultConfiguration, such as
 * VAULT_AUTHENTICATION=kubernetes, configure the Vault client. Copy TokenSource into your own
 * program.
 */
public final class Main {

    /** Holds the newest access token. It is safe for concurrent use. */
    static final class TokenSource {
        private final SecretLeaseContainer secrets;
        private volatile String token;

        /** Obtains the first token, and keeps it fresh. */
        TokenSource(VaultOperations vault, String creds) {
            secrets = new SecretLeaseContainer(vault);
            secrets.afterPropertiesSet();
            secrets.addLeaseListener(event -> {
                if (event instanceof SecretLeaseCreatedEvent created) { // also when rotated
                    token = (String) created.getSecrets().get("access_token");
                }
            });
            secrets.addErrorListener((event, error) -> {
                // Spring Vault does not retry. The old token is valid for the margin.
                System.err.println("no new token, retrying in 5 s: " + error.getMessage());
                CompletableFuture.delayedExecutor(5, TimeUnit.SECONDS).execute(this::read);
            });
            // "rotating", and a role with delivery=leased: a "renewable" secret, or another
            // delivery, is read only once, and no event says so.
            secrets.requestRotatingSecret(creds);
            read();
            if (token == null) {
                throw new IllegalStateException("no access token at " + creds);
            }
        }

        String token() {
            return token;
        }

        private void read() {
            secrets.stop();
            secrets.start();
        }
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("vault.uri", System.getenv("VAULT_ADDR"));
        var vault = new AnnotationConfigApplicationContext(EnvironmentVaultConfiguration.class);
        var source = new TokenSource(vault.getBean(VaultOperations.class), args[0]);
        var seconds = args.length > 2 ? Double.parseDouble(args[2]) : 10;
        var client = HttpClient.newHttpClient(); // does not follow redirects
        for (;; Thread.sleep((long) (seconds * 1000))) {
            var request = HttpRequest.newBuilder(URI.create(args[1])).timeout(Duration.ofSeconds(30))
                .header("Authorization", "Bearer " + source.token()).build();
            try {
                var response = client.send(request, BodyHandlers.discarding());
                System.out.println(Instant.now() + " " + response.statusCode());
            } catch (IOException error) {
                System.err.println(error);
            }
        }
    }
}
