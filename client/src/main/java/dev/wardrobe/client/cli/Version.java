package dev.wardrobe.client.cli;

import picocli.CommandLine.IVersionProvider;

/** The product's version, as the jar's manifest has it. */
final class Version implements IVersionProvider {
  @Override
  public String[] getVersion() {
    String version = Version.class.getPackage().getImplementationVersion();
    return new String[] {"wardrobe " + (version == null ? "development" : version)};
  }
}
