package dev.wardrobe.client.cli;

import picocli.CommandLine.IVersionProvider;

/** The product's version, as the jar's manifest has it. */
final class Version implements IVersionProvider {
  static String text() {
    String version = Version.class.getPackage().getImplementationVersion();
    return version == null ? "development" : version;
  }

  @Override
  public String[] getVersion() {
    return new String[] {"wardrobe " + text()};
  }
}
