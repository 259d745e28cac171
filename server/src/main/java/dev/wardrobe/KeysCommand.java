package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.tenant.ApiKey;
import dev.wardrobe.tenant.Grant;
import dev.wardrobe.tenant.KeyFile;
import dev.wardrobe.tenant.KeyFileException;
import dev.wardrobe.tenant.Scope;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code wardrobe keys}: who may call a server, in the file that it reads. */
@Command(
    name = "keys",
    description = "Look after the keys of a server: the file that serve --keys reads.",
    footer = {
      "",
      "The file holds hashes: a key is shown once, by create, and cannot be had again. A running",
      "server reads the file again within seconds of a change.",
    },
    subcommands = {
      KeysCommand.CreateCommand.class,
      KeysCommand.ListCommand.class,
      KeysCommand.RevokeCommand.class
    },
    mixinStandardHelpOptions = true)
final class KeysCommand implements Runnable {
  @Spec private CommandSpec spec = CommandSpec.create();

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "expected create, list or revoke");
  }

  /** Which file. */
  static final class Place {
    @Option(names = "--keys", required = true, paramLabel = "FILE", description = "The file.")
    private Path path = Path.of("");

    KeyFile file() {
      return new KeyFile(path);
    }

    boolean exists() {
      return Files.exists(path);
    }
  }

  /** {@code wardrobe keys create}. */
  @Command(
      name = "create",
      description =
          "Make a key, add it to the file, and print it, this once. The file is made if there is"
              + " none.",
      footer = {
        "",
        "  wardrobe keys create --keys keys.jsonl --tenant acme --adapters 'acme/*'",
        "  wardrobe keys create --keys keys.jsonl --tenant ops --scope admin",
      },
      mixinStandardHelpOptions = true)
  static final class CreateCommand implements Callable<Integer> {
    private static final Pattern PERIOD = Pattern.compile("([1-9][0-9]{0,5})([mhd])");

    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Option(
        names = "--tenant",
        required = true,
        paramLabel = "TENANT",
        description = "Whose requests those with this key are.")
    private String tenant = "";

    @Option(
        names = "--id",
        paramLabel = "ID",
        description =
            "What it is called in lists and logs. Default: the tenant and the first free number.")
    private @Nullable String id;

    @Option(
        names = "--scope",
        split = ",",
        paramLabel = "SCOPE",
        defaultValue = "inference",
        description =
            "What it is good for: inference, adapters (load, publish and remove them), admin (all"
                + " of it). May be repeated. Default: ${DEFAULT-VALUE}.")
    private List<String> scopes = List.of("inference");

    @Option(
        names = "--adapters",
        split = ",",
        paramLabel = "NAME",
        defaultValue = "*",
        description =
            "Which adapters there are for it, by names in which * stands for anything, such as"
                + " 'acme/*'. May be repeated. Default: ${DEFAULT-VALUE}.")
    private List<String> adapters = List.of("*");

    @Option(
        names = "--expires",
        paramLabel = "WHEN",
        description = "In 30m, 12h or 90d, or at 2027-01-31T00:00:00Z. Default: never.")
    private @Nullable String expires;

    @Option(
        names = "--certificate",
        paramLabel = "NAME",
        description =
            "Instead of a key: for a client's certificate with this common name, or DNS, e-mail or"
                + " URI name (serve --tls-client-ca).")
    private @Nullable String certificate;

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    @Override
    public Integer call() throws KeyFileException {
      String key = ApiKey.create();
      Grant grant = grant(key);
      place.file().add(grant);
      if (json) {
        ObjectNode root = new ObjectMapper().createObjectNode();
        root.put("id", grant.id()).put("tenant", tenant);
        grant.adapters().forEach(root.putArray("adapters")::add);
        if (certificate == null) {
          root.put("key", key);
        } else {
          root.put("certificate", certificate);
        }
        spec.commandLine().getOut().println(root);
        spec.commandLine().getOut().flush();
        return 0;
      }
      PrintWriter err = spec.commandLine().getErr();
      err.printf(
          "%s: %s of tenant %s for %s, adapters %s%n",
          grant.id(),
          certificate == null ? "key" : "certificate " + certificate,
          tenant,
          grant.describeScopes(),
          String.join(", ", grant.adapters()));
      if (certificate == null) {
        err.println("This is the key; it is not kept and cannot be shown again:");
      }
      err.flush();
      if (certificate == null) {
        PrintWriter out = spec.commandLine().getOut();
        out.println(key);
        out.flush();
      }
      return 0;
    }

    private Grant grant(String key) throws KeyFileException {
      try {
        List<Scope> parsed = scopes.stream().map(Scope::of).toList();
        String called = id == null ? free() : id;
        Instant end = expires == null ? null : end(expires);
        return certificate == null
            ? Grant.ofKey(key, called, tenant, parsed, adapters, end)
            : Grant.ofCertificate(certificate, called, tenant, parsed, adapters, end);
      } catch (IllegalArgumentException e) {
        throw new ParameterException(spec.commandLine(), option(String.valueOf(e.getMessage())), e);
      }
    }

    /** What is wrong with a field, said of the option that gave it. */
    private static String option(String message) {
      int colon = message.indexOf(':');
      String field = message.substring(0, Math.max(0, colon));
      return "--" + (field.equals("scopes") ? "scope" : field) + message.substring(colon);
    }

    private String free() throws KeyFileException {
      String base = tenant.replaceAll("[^A-Za-z0-9._-]", "-");
      String start = base.isEmpty() || !Character.isLetterOrDigit(base.charAt(0)) ? "key" : base;
      String name = start.substring(0, Math.min(start.length(), 50));
      List<String> taken =
          place.exists() ? place.file().read().stream().map(Grant::id).toList() : List.of();
      int number = 1;
      while (taken.contains(name + "-" + number)) {
        number++;
      }
      return name + "-" + number;
    }

    private Instant end(String text) {
      Matcher period = PERIOD.matcher(text);
      Instant now = Instant.now().truncatedTo(ChronoUnit.SECONDS);
      try {
        Instant end =
            period.matches()
                ? now.plus(
                    Duration.of(
                        Long.parseLong(period.group(1)),
                        switch (period.group(2)) {
                          case "m" -> ChronoUnit.MINUTES;
                          case "h" -> ChronoUnit.HOURS;
                          default -> ChronoUnit.DAYS;
                        }))
                : Instant.parse(text);
        if (end.isAfter(now)) {
          return end;
        }
      } catch (DateTimeParseException e) {
        // Said below.
      }
      throw new ParameterException(
          spec.commandLine(),
          "--expires: expected 30m, 12h, 90d, or a time to come such as 2027-01-31T00:00:00Z, got '"
              + text
              + "'");
    }
  }

  /** {@code wardrobe keys list}. */
  @Command(
      name = "list",
      description = "List who has a key, and what it is good for.",
      mixinStandardHelpOptions = true)
  static final class ListCommand implements Callable<Integer> {
    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    @Override
    public Integer call() throws KeyFileException, IOException {
      List<Grant> grants = place.file().read();
      PrintWriter out = spec.commandLine().getOut();
      if (json) {
        ObjectMapper mapper = new ObjectMapper();
        ArrayNode list = mapper.createArrayNode();
        for (Grant grant : grants) {
          list.add(grant.toJson().without("sha256"));
        }
        out.println(mapper.writerWithDefaultPrettyPrinter().writeValueAsString(list));
      } else {
        Instant now = Instant.now();
        List<String[]> rows = new ArrayList<>();
        rows.add(new String[] {"ID", "TENANT", "SCOPES", "ADAPTERS", "SHOWS", "EXPIRES"});
        for (Grant grant : grants) {
          Instant expires = grant.expires();
          rows.add(
              new String[] {
                grant.id(),
                String.valueOf(grant.caller().tenant()),
                grant.describeScopes(),
                String.join(", ", grant.adapters()),
                grant.certificate() == null ? "key" : "certificate " + grant.certificate(),
                expires == null
                    ? "never"
                    : grant.expired(now) ? "expired " + expires : expires.toString()
              });
        }
        print(rows, out);
      }
      out.flush();
      return 0;
    }

    private static void print(List<String[]> rows, PrintWriter out) {
      int[] widths = new int[rows.getFirst().length];
      for (String[] row : rows) {
        for (int i = 0; i < row.length; i++) {
          widths[i] = Math.max(widths[i], row[i].length());
        }
      }
      for (String[] row : rows) {
        StringBuilder line = new StringBuilder();
        for (int i = 0; i < row.length; i++) {
          line.append(String.format(Locale.ROOT, "%-" + (widths[i] + 2) + "s", row[i]));
        }
        out.println(line.toString().stripTrailing());
      }
    }
  }

  /** {@code wardrobe keys revoke}. */
  @Command(
      name = "revoke",
      description =
          "Take a key out of the file: a running server refuses it within seconds. Requests that"
              + " have begun go on to their end.",
      mixinStandardHelpOptions = true)
  static final class RevokeCommand implements Callable<Integer> {
    @Spec private CommandSpec spec = CommandSpec.create();
    @Mixin private final Place place = new Place();

    @Parameters(paramLabel = "ID", description = "What list shows it as.")
    private String id = "";

    @Option(names = "--json", description = "Print one JSON document.")
    private boolean json;

    @Override
    public Integer call() throws KeyFileException, StartException {
      if (place.file().read().stream().noneMatch(grant -> grant.id().equals(id))) {
        throw StartException.notFound(
            "expected the id of a key in %s, got '%s'; see wardrobe keys list"
                .formatted(place.path, id));
      }
      place.file().remove(id);
      PrintWriter out = spec.commandLine().getOut();
      out.println(
          json
              ? new ObjectMapper().createObjectNode().put("revoked", id).toString()
              : id + " revoked");
      out.flush();
      return 0;
    }
  }
}
