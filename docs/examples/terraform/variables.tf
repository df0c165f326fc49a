variable "mount" {
  description = "Path of the mount."
  type        = string
  default     = "bcgov-jwt"
}

variable "plugin" {
  description = "Version that the mount runs, as v0.1.0, and its binary's SHA-256, if registered here."
  type        = object({ version = string, sha256 = string })
  default     = null
}

variable "api" {
  description = "Prefix of the names of keys and roles, such as myapi-dev."
  type        = string
  default     = "myapi"
}

variable "config" {
  description = "Network settings of the mount. Durations are whole seconds."
  type = object({
    allowed_hosts   = optional(list(string), [])
    ca_cert         = optional(string, "")
    request_timeout = optional(number, 10)
    max_retries     = optional(number, 2)
  })
  default = {}
}

variable "environments" {
  description = "What the portal shows after the access request, and what to request."
  type = map(object({
    client_id        = optional(string, "")
    issuer           = optional(string, "")
    token_endpoint   = optional(string, "")
    scopes           = optional(list(string), [])
    delivery         = optional(string, "leased")
    deletion_allowed = optional(bool, false)
  }))
  default = {
    dev  = {}
    test = {}
    prod = {}
  }
}
