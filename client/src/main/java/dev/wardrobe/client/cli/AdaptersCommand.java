package dev.wardrobe.client.cli;

import com.google.protobuf.MessageOrBuilder;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.Alias;
import dev.wardrobe.v1.DeleteVersionResponse;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.ListVersionsResponse;
import dev.wardrobe.v1.LoadAdapterResponse;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.ScanAdaptersResponse;
import dev.wardrobe.v1.SetAliasRequest;
import dev.wardrobe.v1.Shadow;
import dev.wardrobe.v1.Share;
import dev.wardrobe.v1.UnloadAdapterResponse;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** What the server holds, its coming and going, and what it is called. */
@Command(
    name = "adapters",
    description = "Lists, publishes, names, loads and watches a server's adapters.",
    footer = {"", "A reference is NAME, NAME@VERSION, NAME@ALIAS or a digest (sha256:...)."},
    mixinStandardHelpOptions = true)
final class AdaptersCommand implements Runnable {
  private static final String REFERENCE = "REFERENCE";

  @Spec private CommandSpec spec;

  /** {@code NAME@LABEL}. */
  private record Labelled(String name, String label) {}

  @Override
  public void run() {
    throw new ParameterException(
        spec.commandLine(),
        "a command is missing: list, show, publish, versions, alias, split, rollback, delete,"
            + " watch, load, unload, pin, unpin or scan");
  }

  private PrintWriter out() {
    return spec.commandLine().getOut();
  }

  private void say(String line) {
    out().println(line);
    out().flush();
  }

  private void print(MessageOrBuilder message) throws IOException {
    out().println(ProtoJson.document(message));
    out().flush();
  }

  private void print(List<String> lines) {
    lines.forEach(out()::println);
    out().flush();
  }

  private Labelled labelled(String reference, String what) {
    int at = reference.indexOf('@');
    if (at < 1 || at == reference.length() - 1) {
      throw wrong(
          "expected NAME@%s, such as support@%s, got '%s'"
              .formatted(what, what.equals("ALIAS") ? "prod" : "3", reference));
    }
    return new Labelled(reference.substring(0, at), reference.substring(at + 1));
  }

  private ParameterException wrong(String message) {
    ParseResult parsed = spec.commandLine().getParseResult();
    return new ParameterException(
        parsed.hasSubcommand()
            ? parsed.subcommand().commandSpec().commandLine()
            : spec.commandLine(),
        message);
  }

  @Command(
      name = "list",
      description = "Everything that can be asked for by name.",
      mixinStandardHelpOptions = true)
  int list(
      @Mixin ServerOption server,
      @Option(names = "--json", description = "Print one JSON document.") boolean json,
      @Option(names = "--broken", description = "Only what cannot be used, with why.")
          boolean broken,
      @Option(
              names = "--names",
              description = "Only the names, one a line, without versions and what is broken.")
          boolean names)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      ListAdaptersResponse listed = client.listAdaptersAndRevision();
      List<Adapter> adapters = listed.getAdaptersList();
      if (broken) {
        adapters = adapters.stream().filter(a -> !a.getProblem().isEmpty()).toList();
      }
      if (names) {
        print(
            adapters.stream()
                .filter(a -> broken || a.getProblem().isEmpty())
                .map(a -> a.getName().replaceFirst("@.*", ""))
                .distinct()
                .toList());
      } else if (json) {
        print(listed.toBuilder().clearAdapters().addAllAdapters(adapters));
      } else {
        print(AdapterTable.of(adapters));
        if (listed.getScanning()) {
          say("The adapter roots are still being looked through; there may be more.");
        }
      }
    }
    return 0;
  }

  @Command(
      name = "show",
      aliases = "get",
      description = "One adapter.",
      mixinStandardHelpOptions = true)
  int show(
      @Mixin ServerOption server,
      @Parameters(paramLabel = REFERENCE) String reference,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      Adapter adapter = client.adapter(reference);
      if (json) {
        print(adapter);
      } else {
        print(AdapterTable.one(adapter));
      }
    }
    return 0;
  }

  @Command(
      name = "publish",
      description = "Adds a version to the server's store, and points latest at it.",
      mixinStandardHelpOptions = true)
  int publish(
      @Mixin ServerOption server,
      @Parameters(
              paramLabel = "DIR",
              description =
                  "A PEFT directory; with --on-server a path under an adapter root there.")
          Path directory,
      @Parameters(
              arity = "0..1",
              paramLabel = "NAME[@VERSION]",
              description = "Default: DIR's last part, and the next number.")
          @Nullable String reference,
      @Option(
              names = "--alias",
              paramLabel = "ALIAS",
              description = "Point this at it too. May be repeated.")
          @Nullable List<String> aliases,
      @Option(names = "--keep-latest", description = "Leave latest where it is.")
          boolean keepLatest,
      @Option(
              names = "--digest",
              paramLabel = "sha256:...",
              description = "Refuse any other content.")
          @Nullable String digest,
      @Option(names = "--on-server", description = "DIR is the server's.") boolean onServer,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    Path last = directory.toAbsolutePath().normalize().getFileName();
    String name = reference == null ? String.valueOf(last) : reference;
    PublishAdapterRequest.Header.Builder header = PublishAdapterRequest.Header.newBuilder();
    if (name.contains("@")) {
      Labelled labelled = labelled(name, "VERSION");
      header.setName(labelled.name()).setVersion(labelled.label());
    } else {
      header.setName(name);
    }
    header.setKeepLatest(keepLatest);
    if (aliases != null) {
      header.addAllAliases(aliases);
    }
    if (digest != null) {
      header.setDigest(digest);
    }
    try (WardrobeClient client = server.connect();
        ProgressBar bar =
            new ProgressBar(
                spec.commandLine().getErr(), Terminal.err(), "publishing " + header.getName())) {
      PublishAdapterResponse published =
          onServer
              ? client.publishAdapter(
                  header.setPath(directory.toString().replace('\\', '/')).build())
              : client.publishAdapter(header.build(), directory, bar::at);
      bar.clear();
      if (json) {
        print(published);
        return ExitCode.DONE;
      }
      Adapter adapter = published.getAdapter();
      say(
          String.format(
              Locale.ROOT,
              "%s %s %s in %.1f ms%s",
              adapter.getName(),
              adapter.getDigest(),
              published.getExisted() ? "was there already" : "published",
              published.getPublishMs(),
              adapter.getAliasesCount() == 0
                  ? ""
                  : "; " + String.join(", ", adapter.getAliasesList())));
      adapter
          .getWarningsList()
          .forEach(warning -> say(String.format(Locale.ROOT, "warning: %s", warning)));
    }
    return 0;
  }

  @Command(
      name = "versions",
      description = "The versions and aliases of a name in the store.",
      mixinStandardHelpOptions = true)
  int versions(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "NAME") String name,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      ListVersionsResponse versions = client.versions(name);
      if (json) {
        print(versions);
      } else {
        print(AdapterTable.versions(versions));
      }
    }
    return 0;
  }

  @Command(
      name = "alias",
      description = "Points an alias at a version; requests that run stay where they are.",
      mixinStandardHelpOptions = true)
  int alias(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "NAME@ALIAS") String reference,
      @Parameters(arity = "0..1", paramLabel = "VERSION") @Nullable String version,
      @Option(
              names = "--shadow",
              paramLabel = "VERSION[=FRACTION]",
              description = "Ask this the same, or a fraction of it, and drop the answers.")
          @Nullable String shadow,
      @Option(names = "--remove", description = "Remove the alias.") boolean remove,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    Labelled labelled = labelled(reference, "ALIAS");
    if (remove == (version != null)) {
      throw wrong("expected a version to point " + reference + " at, or --remove");
    }
    if (version == null) {
      try (WardrobeClient client = server.connect()) {
        client.deleteAlias(labelled.name(), labelled.label());
      }
      if (json) {
        print(Alias.newBuilder().setName(labelled.name()).setAlias(labelled.label()));
      } else {
        say(String.format(Locale.ROOT, "%s removed", reference));
      }
      return 0;
    }
    return set(
        server, labelled, List.of(Share.newBuilder().setVersion(version).build()), shadow, json);
  }

  @Command(
      name = "split",
      description = "Divides an alias' requests among versions.",
      mixinStandardHelpOptions = true)
  int split(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "NAME@ALIAS") String reference,
      @Parameters(arity = "1..*", paramLabel = "VERSION=WEIGHT", description = "Such as 3=95 4=5.")
          List<String> weights,
      @Option(
              names = "--shadow",
              paramLabel = "VERSION[=FRACTION]",
              description = "Ask this the same, or a fraction of it, and drop the answers.")
          @Nullable String shadow,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    List<Share> shares = new ArrayList<>();
    for (String weight : weights) {
      int at = weight.lastIndexOf('=');
      try {
        if (at < 1) {
          throw new NumberFormatException("no weight");
        }
        shares.add(
            Share.newBuilder()
                .setVersion(weight.substring(0, at))
                .setWeight(Integer.parseInt(weight.substring(at + 1)))
                .build());
      } catch (NumberFormatException e) {
        throw wrong(
            "expected VERSION=WEIGHT with a whole number, such as 3=95, got '%s'"
                .formatted(weight));
      }
    }
    return set(server, labelled(reference, "ALIAS"), shares, shadow, json);
  }

  private int set(
      ServerOption server,
      Labelled labelled,
      List<Share> shares,
      @Nullable String shadow,
      boolean json)
      throws IOException {
    SetAliasRequest.Builder request =
        SetAliasRequest.newBuilder()
            .setName(labelled.name())
            .setAlias(labelled.label())
            .addAllShares(shares);
    if (shadow != null) {
      request.setShadow(shadow(shadow));
    }
    try (WardrobeClient client = server.connect()) {
      say(client.setAlias(request.build()), json);
    }
    return 0;
  }

  private Shadow shadow(String shadow) {
    int at = shadow.lastIndexOf('=');
    if (at < 0) {
      return Shadow.newBuilder().setVersion(shadow).build();
    }
    try {
      return Shadow.newBuilder()
          .setVersion(shadow.substring(0, at))
          .setFraction(Float.parseFloat(shadow.substring(at + 1)))
          .build();
    } catch (NumberFormatException e) {
      throw wrong(
          "--shadow: expected VERSION or VERSION=FRACTION, such as 4=0.1, got '%s'"
              .formatted(shadow));
    }
  }

  private void say(Alias alias, boolean json) throws IOException {
    if (json) {
      print(alias);
      return;
    }
    say(
        String.format(
            Locale.ROOT,
            "%s@%s is %s",
            alias.getName(),
            alias.getAlias(),
            AdapterTable.target(
                alias.getSharesList(), alias.hasShadow() ? alias.getShadow() : null)));
  }

  @Command(
      name = "rollback",
      description = "Puts an alias back to what it was before its last change.",
      mixinStandardHelpOptions = true)
  int rollback(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "NAME@ALIAS") String reference,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    Labelled labelled =
        labelled(reference.contains("@") ? reference : reference + "@latest", "ALIAS");
    try (WardrobeClient client = server.connect()) {
      say(client.rollbackAlias(labelled.name(), labelled.label()), json);
    }
    return 0;
  }

  @Command(
      name = "delete",
      description = "Removes a version from the store; requests that use it end undisturbed.",
      mixinStandardHelpOptions = true)
  int delete(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "NAME@VERSION") String reference,
      @Option(names = "--force", description = "Even if aliases point at it.") boolean force,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    Labelled labelled = labelled(reference, "VERSION");
    try (WardrobeClient client = server.connect()) {
      DeleteVersionResponse gone = client.deleteVersion(labelled.name(), labelled.label(), force);
      if (json) {
        print(gone);
        return ExitCode.DONE;
      }
      say(
          String.format(
              Locale.ROOT,
              "%s deleted%s%s",
              reference,
              gone.getInUse() > 0 ? "; " + gone.getInUse() + " requests still use it" : "",
              gone.getAliasesCount() > 0
                  ? "; taken out of " + String.join(", ", gone.getAliasesList())
                  : ""));
    }
    return 0;
  }

  @Command(
      name = "watch",
      description = "Prints what happens to adapters, as it happens.",
      mixinStandardHelpOptions = true)
  int watch(
      @Mixin ServerOption server,
      @Option(
              names = "--after",
              paramLabel = "REVISION",
              description = "Begin after this revision. Default: now.")
          @Nullable Long after,
      @Option(names = "--json", description = "Print a JSON document a line.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      for (Iterator<AdapterEvent> events = client.watchAdapters(after); events.hasNext(); ) {
        AdapterEvent event = events.next();
        if (json) {
          say(String.format(Locale.ROOT, "%s", ProtoJson.line(event)));
        } else {
          say(String.format(Locale.ROOT, "%s", AdapterTable.event(event)));
        }
        ClosedPipeException.check(out());
      }
    }
    return 0;
  }

  @Command(
      name = "load",
      description =
          "Loads a PEFT directory under one of the server's --adapter-root folders, or a version of"
              + " its store.",
      mixinStandardHelpOptions = true)
  int load(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "NAME") String name,
      @Parameters(arity = "0..1", paramLabel = "PATH", description = "Default: NAME.")
          @Nullable String path,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      LoadAdapterResponse loaded = client.loadAdapter(name, path);
      if (json) {
        print(loaded);
        return ExitCode.DONE;
      }
      say(
          String.format(
              Locale.ROOT,
              "%s %s loaded in %.1f ms",
              loaded.getAdapter().getName(),
              loaded.getAdapter().getDigest(),
              loaded.getLoadMs()));
      loaded
          .getAdapter()
          .getWarningsList()
          .forEach(warning -> say(String.format(Locale.ROOT, "warning: %s", warning)));
    }
    return 0;
  }

  @Command(
      name = "unload",
      description =
          "Forgets an adapter; of a version in the store, gives back the memory alone. Requests"
              + " that use it end undisturbed.",
      mixinStandardHelpOptions = true)
  int unload(
      @Mixin ServerOption server,
      @Parameters(paramLabel = "REFERENCE") String name,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      UnloadAdapterResponse gone = client.unloadAdapter(name);
      if (json) {
        print(gone);
        return ExitCode.DONE;
      }
      say(
          String.format(
              Locale.ROOT,
              "%s unloaded%s",
              name,
              gone.getInUse() > 0 ? "; " + gone.getInUse() + " requests still use it" : ""));
    }
    return 0;
  }

  @Command(
      name = "pin",
      description = "Keeps an adapter resident.",
      mixinStandardHelpOptions = true)
  int pin(
      @Mixin ServerOption server,
      @Parameters(paramLabel = REFERENCE) String reference,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      Adapter adapter = client.pinAdapter(reference);
      if (json) {
        print(adapter);
        return ExitCode.DONE;
      }
      say(String.format(Locale.ROOT, "%s %s pinned", adapter.getName(), adapter.getDigest()));
    }
    return 0;
  }

  @Command(
      name = "unpin",
      description = "Lets an adapter's memory go to others when it is not in use.",
      mixinStandardHelpOptions = true)
  int unpin(
      @Mixin ServerOption server,
      @Parameters(paramLabel = REFERENCE) String reference,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      Adapter adapter = client.unpinAdapter(reference);
      if (json) {
        print(adapter);
        return ExitCode.DONE;
      }
      say(String.format(Locale.ROOT, "%s %s unpinned", adapter.getName(), adapter.getDigest()));
    }
    return 0;
  }

  @Command(
      name = "scan",
      description = "Has the server look through its adapter roots again.",
      mixinStandardHelpOptions = true)
  int scan(
      @Mixin ServerOption server,
      @Option(names = "--json", description = "Print one JSON document.") boolean json)
      throws IOException {
    try (WardrobeClient client = server.connect()) {
      ScanAdaptersResponse scanned = client.scanAdapters();
      if (json) {
        print(scanned);
        return ExitCode.DONE;
      }
      say(
          String.format(
              Locale.ROOT,
              "%d adapters, of which %d cannot be used, in %.1f ms",
              scanned.getAdapters(),
              scanned.getBroken(),
              scanned.getScanMs()));
    }
    return 0;
  }
}
